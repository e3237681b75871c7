"""``python -m spikeport.deploy.bench.screenshot``: the picture of the live view that README and reports show.

It is a page as a browser draws it, of a real recording (DVS128 Gesture, CC BY 4.0) on the emulator, in 128 colors.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.viewer import Viewer
from spikeport.models.atomic import write_atomic
from spikeport.models.errors import DataError
from spikeport.models.gesture_cnn import GESTURES

from .browser import open_browser
from .workloads import Scope, find_missing, recordings_workload

PICTURE = Path(__file__).parents[1] / "view" / "screenshot.png"

_SIZE = {"width": 1280, "height": 800}
_LATE_MS = 2500  # of wall time at half speed: most of a recording
_N_COLORS = 128
_RECORDING = 1


def take_screenshot() -> bytes:
    """Return a PNG of the page shortly before the end of a recording. Raises: DataError without the real recordings."""
    from PIL import Image

    missing = find_missing("recordings")
    if missing is not None:
        raise DataError(missing)
    work = list(recordings_workload(Scope()))[_RECORDING]
    names = {"network": "gesture", "classes": list(GESTURES)}
    program = dataclasses.replace(work.program, provenance={**work.program.provenance, **names})
    with open_browser() as browser, Viewer(program, work.recordings[0], settings=ViewSettings(speed=0.5)) as viewer:
        viewer.start()
        viewer.show.pause()
        page = browser.new_page(viewport=_SIZE, color_scheme="dark")  # type: ignore[arg-type]
        page.goto(viewer.url)
        page.wait_for_selector("body[data-state=live]")
        viewer.show.seek(0)
        viewer.show.play()
        page.wait_for_timeout(_LATE_MS)
        picture = page.screenshot()
    small = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(_N_COLORS, dither=Image.Dither.NONE).save(
        small, "PNG", optimize=True
    )
    return small.getvalue()


if __name__ == "__main__":
    write_atomic(PICTURE, take_screenshot())
