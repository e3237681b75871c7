"""The command ``spikeport`` as a process of its own, and without the seconds that such a process takes to start."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from spikeport.deploy.cli import main

Done = subprocess.CompletedProcess[str]
NO_COLOR = {"NO_COLOR": "1"}


def spawn(*arguments: object, cwd: Path) -> Done:
    """Return the exit code and the text of ``spikeport`` as a user starts it: in a process of its own."""
    command = [sys.executable, "-m", "spikeport.deploy", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=os.environ | NO_COLOR, capture_output=True, text=True, check=False)


def spikeport(*arguments: object, cwd: Path) -> Done:
    """Return the exit code and the text of the console script's entry point, called in this process.

    Law: equal to what ``spawn`` returns (``test_cli_refused.py`` compares them), but that a warning is an error here.
    """
    command = ["spikeport", *map(str, arguments)]
    printed = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(stream, encoding="utf-8", write_through=True) for stream in printed)
    with (
        contextlib.chdir(cwd),
        patch.object(sys, "argv", command),
        patch.dict(os.environ, NO_COLOR),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main()
    assert isinstance(stop.value.code, int)
    return Done(command, stop.value.code, *(stream.getvalue().decode() for stream in printed))
