"""Spiking network to chip: plan, compile, run, report."""
