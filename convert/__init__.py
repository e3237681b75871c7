"""Torch CNN to chip-neutral spiking network, and what it costs."""
