"""``python -m spikeport.deploy.virtual DEVICES SCRIPT.py [ARGS...]``: a script that finds virtual boards.

``DEVICES`` are names of chips with commas between. ``spikeport run-script`` is the way for users.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from .installation import install


def main() -> None:
    """Run the script of this process's arguments as ``python SCRIPT.py ARGS`` would."""
    _, devices, script, *_ = sys.argv
    install(devices.split(","))
    sys.argv = sys.argv[2:]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
