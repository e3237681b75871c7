"""What all tests share."""

from __future__ import annotations

import os

# Read by torch at its import, here and in every process that a test starts: nets this small lose time on two threads.
os.environ["OMP_NUM_THREADS"] = "1"
