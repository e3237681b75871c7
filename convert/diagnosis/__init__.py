"""Where a spiking net leaves its CNN, and why: counts per layer (``measure``), causes, curves, and the diagnosis."""
