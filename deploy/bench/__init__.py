"""Benchmarks: the same trained networks through our converter and others, in one run (``spikeport bench``)."""
