"""A headless browser of the system, driven by Playwright, for what a page has to show."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from spikeport.models.errors import DataError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def find_browser() -> str | None:
    """Return the path of a browser of the system, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def find_missing() -> str | None:
    """Return what is not there to drive a browser, as a sentence; None where all is."""
    if importlib.util.find_spec("playwright") is None:
        return "no Python package playwright. Try: pip install playwright"
    if find_browser() is None:
        return f"no browser: none of {', '.join(_NAMES)} is on the PATH. Try: apt install chromium"
    return None


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield a headless browser. Raises: DataError where there is none, or no package to drive it."""
    missing = find_missing()
    if missing is not None:
        raise DataError(f"browser: {missing}.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_browser(), args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()
