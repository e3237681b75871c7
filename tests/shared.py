"""Where tests find the real recordings and third-party weights, which are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("SPIKEPORT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def needs(*names: str) -> pytest.MarkDecorator:
    """Return the mark of a test that reads some folders of the real data: it is skipped where one is not there."""
    absent = [name for name in names if not (SHARED / name).is_dir()]
    return pytest.mark.skipif(bool(absent), reason=f"no {', '.join(absent)} at {SHARED}: set SPIKEPORT_DATA")
