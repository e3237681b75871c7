"""The command ``view`` as a user calls it: what it refuses before anything is served, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from spikeport.deploy import compile_program, save_program
from spikeport.deploy.cli import _options_of, app
from spikeport.models.events import Events
from spikeport.models.files import write_events

from ...invoke import NO_COLOR, spikeport  # noqa: TID252
from ..nets import stack  # noqa: TID252

PROGRAM = "program.safetensors"
ONE = (PROGRAM, "--input", "many/0.npz")
READOUTS = """
def first(counts):
    return 0
def wrong(counts):
    return "left"
def beyond(counts):
    return 99
def broken(counts):
    return 1 / 0
def leaving(counts):
    raise SystemExit(0)
def later(counts):
    assert not counts.any(), "spikes"
number = 3
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a user: a program, recordings, a readout, icons."""
    folder = tmp_path_factory.mktemp("home")
    net = stack((2, 16, 16), [{"features": 4, "kernel": 3, "pool": 2}, {"features": 3, "kernel": 0}])
    save_program(compile_program(net, "speck2fdevkit", provenance={"classes": ["a", "b", "c"]}), folder / PROGRAM)
    rng = np.random.default_rng(0)
    (folder / "many").mkdir()
    (folder / "empty").mkdir()
    for index in range(2):
        write_events(_random(rng, 16), folder / "many" / f"{index}.npz")
    write_events(_random(rng, 20), folder / "large.npz")
    (folder / "readouts.py").write_text(READOUTS)
    (folder / "badly").mkdir()
    (folder / "badly" / "clap.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "damaged.safetensors").write_bytes(b"no program")
    (folder / "view.toml").write_text('[view]\nonce = true\nopen = false\nnames = ["x", "y", "z"]\njson = true\n')
    (folder / "odd.toml").write_text("[view]\npower-items = 4\n")
    (folder / "round.toml").write_text("[view]\nloop = true\nonce = true\n")
    (folder / "clock.toml").write_text("[view]\nslow-clock-hz = 1000.0\n")
    return folder


def _random(rng: np.random.Generator, size: int) -> Events:
    x, y, p = (rng.integers(0, edge, 1000) for edge in (size, size, 2))
    return Events(x, y, p, np.sort(rng.integers(0, 250_000, 1000)), (size, size))


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield str(listening.getsockname()[1])


REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no program": (("none.safetensors", "--input", "many/0.npz"), 6, "none.safetensors: expected"),
    "not a program": (("damaged.safetensors", "--input", "many/0.npz"), 6, "damaged.safetensors"),
    "a recording for a program": (("many/0.npz",), 6, "0.npz: expected a program, or a recorded session"),
    "no input": ((PROGRAM,), 2, "expected an input to show it with, found none"),
    "no recording": ((PROGRAM, "--input", "none.npz"), 6, "none.npz"),
    "an empty folder": ((PROGRAM, "--input", "empty"), 2, "folder 'empty': expected recordings"),
    "another sensor": ((PROGRAM, "--input", "large.npz"), 2, "expected a sensor of 16x16"),
    "camera on the emulator": ((PROGRAM, "--input", "camera"), 2, "camera: expected a board"),
    "no such source": ((PROGRAM, "--input", "tcp://127.0.0.1:1"), 6, "expected a file, - or udp://HOST:PORT"),
    "no such device": ((*ONE, "--device", "speck9"), 7, "device 'speck9'"),
    "negative interval": ((*ONE, "--interval-ms", "-1"), 2, "interval_ms: expected 1 to"),
    "negative threshold": ((*ONE, "--threshold", "-1"), 2, "threshold: expected"),
    "limits": ((*ONE, "--limits", "9:1"), 2, "--limits: expected LOW:HIGH"),
    "unknown plot": ((*ONE, "--plots", "events radar"), 2, "--plots: expected some of events, counts"),
    "speed": ((*ONE, "--speed", "fast"), 2, "--speed: expected"),
    "duration": ((*ONE, "--duration", "0"), 2, "--duration: expected seconds above 0"),
    "no icons": ((*ONE, "--icons", "nowhere"), 2, "icons: expected a folder"),
    "icons without a rule": ((*ONE, "--icons", "badly"), 2, "'clap.png': expected a name of {index}_{label}.png"),
    "no readout": ((*ONE, "--readout", "none.py:first"), 2, "readout 'none.py:first': expected a Python file"),
    "no such readout": ((*ONE, "--readout", "readouts.py:last"), 2, "readout 'readouts.py:last': the file has no"),
    "readout is no function": ((*ONE, "--readout", "readouts.py:number"), 2, "has no function 'number'"),
    "readout without name": ((*ONE, "--readout", "readouts.py"), 2, "expected file.py:function"),
    "readout of a text": (
        (*ONE, "--readout", "readouts.py:wrong"),
        2,
        "readout 'wrong': expected one of the 3 classes",
    ),
    "readout beyond": ((*ONE, "--readout", "readouts.py:beyond"), 2, "readout 'beyond': expected one of the 3 classes"),
    "readout that leaves": ((*ONE, "--readout", "readouts.py:leaving"), 2, "SystemExit"),
    "broken readout": ((*ONE, "--readout", "readouts.py:broken"), 2, "ZeroDivisionError"),
    "host without meaning": ((*ONE, "--host", "not a host"), 2, "host: expected an address"),
    "every interface": ((*ONE, "--host", "0.0.0.0"), 2, "expected the names that the page is reached by"),  # noqa: S104
    "another machine's address": ((*ONE, "--host", "192.0.2.1"), 2, "of 192.0.2.1 cannot be listened on"),
    "port": ((*ONE, "--port", "70000"), 2, "port: expected 0 (any free one) to 65535"),
    "port taken": ((*ONE, "--port", "TAKEN"), 2, "cannot be listened on"),
    "token": ((*ONE, "--token", "short"), 2, "token: expected 16 to 128 letters"),
    "record to a text": ((*ONE, "--record", "session.txt"), 2, "expected a name that ends in .npz"),
    "record over the input": ((*ONE, "--record", "many/0.npz"), 2, "expected another file than the input"),
    "record over a file": ((*ONE, "--record", "large.npz"), 2, "large.npz: expected a recorded session"),
    "names": ((*ONE, "--names", "a,b"), 2, "names: expected 3, one for each class"),
    "default class": ((*ONE, "--default-class", "3"), 2, "default_class: expected one of the 3 classes"),
    "watch": ((*ONE, "--watch", "99"), 2, "watch: expected a core of the program"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_sentence_before_anything_is_served(
    name: str, home: Path, taken: str
) -> None:
    arguments, code, sentence = REFUSED[name]
    options = [taken if one == "TAKEN" else one for one in arguments]
    done = (
        spikeport("view", *options, "--no-open", "--duration", "1", cwd=home)
        if name != "duration"
        else spikeport("view", *options, "--no-open", cwd=home)
    )
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Try " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_value_in_a_file_is_refused_as_one_of_the_command_line(home: Path) -> None:
    done = spikeport("--config", "odd.toml", "view", *ONE, cwd=home)
    assert done.returncode == 2
    assert "power_items: expected 3 or 5 rails, found 4" in done.stderr


def test_a_show_that_goes_round_has_no_end(home: Path) -> None:
    done = spikeport("--config", "round.toml", "view", *ONE, cwd=home)
    assert done.returncode == 2
    assert "once: expected recordings that end, found loop" in done.stderr


def test_the_help_has_15_options_and_the_rest_is_in_the_docs(home: Path) -> None:
    done = spikeport("view", "--help", cwd=home)
    assert len([line for line in done.stdout.splitlines() if line.strip().startswith("-")]) <= 16
    group: Any = typer.main.get_command(app)
    known = set(_options_of(group.commands["view"]))
    page = (Path(__file__).resolve().parents[3] / "docs" / "view.md").read_text()
    assert {name for name in known if f"`{name}`" not in page} == set()


def test_all_is_played_once_and_the_totals_are_told(home: Path) -> None:
    done = spikeport("--config", "view.toml", "view", PROGRAM, "--input", "many", "--speed", "max", cwd=home)
    assert done.returncode == 0, done.stderr
    first, last = map(json.loads, done.stdout.splitlines())
    assert first["url"].startswith("http://127.0.0.1:")
    assert "?token=" in first["url"]
    assert (first["device"], first["pid"]) == ("emulator", os.getpid())
    assert last["totals"]["n_events"] == last["totals"]["n_offered"] == 2000
    assert last["totals"]["n_windows"] == 6


def test_a_recording_of_another_sensor_is_scaled_where_that_is_asked_for(home: Path) -> None:
    (home / "scaled.toml").write_text("[view]\nrescale = true\n")
    large = (PROGRAM, "--input", "large.npz", "--no-open", "--speed", "max", "--json", "--duration", "1")
    refused = spikeport("view", *large, cwd=home)
    assert (refused.returncode, "Try rescale" in refused.stdout + refused.stderr) == (2, True)
    done = spikeport("--config", "scaled.toml", "view", *large, cwd=home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["totals"]["n_events"] == 1000


def test_a_recorded_session_plays_as_what_it_was(home: Path) -> None:
    options = ("--no-open", "--once", "--speed", "max", "--json")
    readout = ("--readout", "readouts.py:first", "--icons", "empty")
    totals = []
    for what in ((PROGRAM, "--input", "many", "--record", "once.npz", *readout), ("once.npz",)):
        done = spikeport("view", *what, *options, cwd=home)
        assert done.returncode == 0, done.stderr
        totals.append(json.loads(done.stdout.splitlines()[-1])["totals"])
    assert {**totals[0], "n_decided": 0} == {**totals[1], "n_decided": 0}
    for arguments, sentence in (
        (("view", PROGRAM, "--input", "once.npz"), "input 'once.npz': expected a recording, found a recorded session"),
        (("--config", "clock.toml", "view", "once.npz"), "--slow-clock-hz: expected a program, found 'once.npz'"),
    ):
        done = spikeport(*arguments, *options, cwd=home)
        assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    beside = spikeport("view", "once.npz", "--input", "many", *options, cwd=home)
    assert (beside.returncode, "expected nothing but the recorded session" in beside.stderr) == (2, True)
    (home / "hurt.npz").write_bytes((home / "once.npz").read_bytes()[:-100])
    assert spikeport("view", "hurt.npz", *options, cwd=home).returncode == 6


def test_a_readout_that_fails_later_ends_it_with_its_sentence_and_the_totals(home: Path) -> None:
    done = spikeport("view", *ONE, "--readout", "readouts.py:later", "--no-open", "--once", "--json", cwd=home)
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert json.loads(lines[1])["totals"]["n_events"] > 0
    assert json.loads("".join(lines[2:]))["error"]["code"] == 2
    assert "Error: readout 'later': expected a class or None" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_page_is_opened_only_where_asked_for_or_where_somebody_sits(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for options in ((), ("--no-open",), ("--open",)):
        done = spikeport("view", *ONE, *options, "--duration", "0.1", cwd=home)
        assert done.returncode == 0, done.stderr
    assert opened == [done.stdout.splitlines()[0]]


def test_it_ends_after_a_while_and_says_so_to_people(home: Path) -> None:
    done = spikeport("view", *ONE, "--no-open", "--duration", "0.2", cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("http://127.0.0.1:")
    assert "events into the program" in done.stdout
    assert "The page is at this URL for 0.2 s, or until Ctrl-C." in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_signal_ends_it_within_two_seconds_with_its_totals(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "spikeport.deploy", "view", PROGRAM, "--input", "many", "--no-open", "--json"]
    with subprocess.Popen(
        command, cwd=home, env=os.environ | NO_COLOR, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as viewer:
        assert viewer.stdout is not None
        assert "url" in json.loads(viewer.stdout.readline())
        viewer.send_signal(number)
        out, err = viewer.communicate(timeout=30)
    assert viewer.returncode == 130
    assert "totals" in json.loads(out)
    assert "Interrupted." in err
    assert "Traceback" not in err
