"""Boards for tests: lock files of their own, and a driver that is closed at the end."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from spikeport.deploy.virtual import driver
from spikeport.deploy.virtual.locks import FOLDER_VARIABLE


@pytest.fixture(autouse=True)
def _locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))


@pytest.fixture
def samna() -> Iterator[types.ModuleType]:
    """A driver with one board of each kind, outside of ``sys.modules``."""
    module = driver(["speck2fdevkit", "speck2edevkit"])
    yield module
    module.virtual.close_all()
