"""What the tests of deployment share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from spikeport.deploy.virtual.locks import FOLDER_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def own_boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give this process of tests virtual boards of its own: one that runs beside it may open the same ones."""
    with patch.dict(os.environ, {FOLDER_VARIABLE: str(tmp_path_factory.mktemp("locks"))}):
        yield
