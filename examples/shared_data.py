"""Where the examples find the real recordings and third-party weights, which are not part of the project."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def shared_data() -> Path:
    """Return the folder of real data, ``SPIKEPORT_DATA`` or ``../shared/data`` beside the repository; else end."""
    folder = Path(os.environ.get("SPIKEPORT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        print(f"No real data at {folder}: nothing to do. Set SPIKEPORT_DATA to a folder that has it.")
        sys.exit(0)
    return folder
