"""``evaluate``, ``predict`` and ``stream`` as a user calls them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeport.convert import NetPredictor
from spikeport.deploy import ProgramPredictor, compile_program
from spikeport.deploy.streaming import parse_every
from spikeport.models import LifPredictor, RecurrentLif, load_arrays, read_events, send_events, symbols
from spikeport.models.errors import InferenceError
from spikeport.models.events import Events
from spikeport.models.files import write_events
from spikeport.models.wire import pack_events

from ..invoke import spikeport  # noqa: TID252
from .nets import stack


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a user: a net, a program, recordings, and pictures in folders."""
    folder = tmp_path_factory.mktemp("home")
    net = stack((2, 16, 16), [{"features": 4, "kernel": 3, "pool": 2}, {"features": 3, "kernel": 0}])
    NetPredictor(net, step_us=5000, classes=("a", "b", "c")).save(folder / "net.safetensors")
    program = compile_program(net, "speck2fdevkit")
    ProgramPredictor(program, classes=("a", "b", "c")).save(folder / "program.safetensors")
    rng = np.random.default_rng(0)
    (folder / "many").mkdir()
    for index in range(3):
        n = 1000 + 100 * index
        times = np.sort(rng.integers(0, 60_000, n))
        x, y, p = (rng.integers(0, edge, n) for edge in (16, 16, 2))
        write_events(Events(x, y, p, times, (16, 16)), folder / "many" / f"{index}.npz")
    from PIL import Image

    for name in ("one", "two"):
        (folder / "pictures" / name).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(rng.integers(0, 256, (34, 34), dtype=np.uint8)).save(
                folder / "pictures" / name / f"{index}.png"
            )
    return folder


def answer(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_evaluate_prints_named_results_and_goes_on_from_shards(home: Path) -> None:
    common = ("evaluate", "digits-merged", "--data", "images:pictures", "--metrics", "accuracy,top_3,confusion_matrix")
    found = answer(spikeport(*common, "--json", cwd=home))
    assert set(found["results"]["output"]) == {"accuracy", "top_3", "confusion_matrix"}
    assert found["n_samples"] == 6
    shown = spikeport(*common, cwd=home)
    assert "untrained" in shown.stderr
    assert shown.returncode == 0, shown.stderr
    assert "accuracy" in shown.stdout
    assert "Decided" in shown.stdout
    assert "6 samples" in shown.stdout


def test_evaluate_of_a_program_counts_what_it_costs(home: Path) -> None:
    done = spikeport(
        "evaluate",
        "program.safetensors",
        "--data",
        "many",
        "--metrics",
        "latency,synops,energy",
        "--shards",
        "shards",
        "--json",
        cwd=home,
    )
    found = answer(done)
    assert found["results"]["output"]["synops"]["per_sample"] > 0
    assert found["results"]["output"]["energy"]["mid_j"] > 0
    again = spikeport(
        "evaluate",
        "program.safetensors",
        "--data",
        "many",
        "--metrics",
        "latency,synops,energy",
        "--shards",
        "shards",
        "--json",
        cwd=home,
    )
    assert answer(again)["n_resumed"] == 3
    assert answer(again)["results"] == found["results"]
    assert "3 of 3 samples were finished before" in again.stderr


def test_predict_tells_classes_by_name_and_writes_outputs(home: Path) -> None:
    found = answer(spikeport("predict", "net.safetensors", "-i", "many", "--out", "out.h5", "--json", cwd=home))
    assert [row["recording"] for row in found["recordings"]] == ["0.npz", "1.npz", "2.npz"]
    assert all(row["class_name"] in "abc" for row in found["recordings"])
    arrays = load_arrays(home / "out.h5")
    np.testing.assert_array_equal(arrays["outputs", "output"], [row["outputs"] for row in found["recordings"]])
    on_board = spikeport(
        "predict", "program.safetensors", "-i", "many/0.npz", "--device", "virtual:speck2fdevkit", "--json", cwd=home
    )
    here = spikeport("predict", "program.safetensors", "-i", "many/0.npz", "--json", cwd=home)
    assert answer(on_board)["recordings"][0]["outputs"] == answer(here)["recordings"][0]["outputs"]


def test_stream_of_a_file_logs_draws_and_counts(home: Path) -> None:
    done = spikeport(
        "stream",
        "program.safetensors",
        "-i",
        "many/0.npz",
        "--every",
        "5ms",
        "--log",
        "log.jsonl",
        "--plot",
        "plot.svg",
        "--json",
        cwd=home,
    )
    found = answer(done)
    lines = [json.loads(line) for line in (home / "log.jsonl").read_text().splitlines()]
    assert len(lines) == found["n_decisions"]
    assert sum(line["n_events"] for line in lines) == found["n_events"] == found["n_in"] == 1000
    assert lines[0]["class_name"] in "abc"
    assert "Confidence" in (home / "plot.svg").read_text()
    by_events = spikeport("stream", "net.safetensors", "-i", "many/0.npz", "--every", "300", cwd=home)
    assert by_events.returncode == 0, by_events.stderr
    assert "events per second" in by_events.stdout


def test_stream_takes_stdin(home: Path) -> None:
    events = read_events(home / "many" / "1.npz")
    done = subprocess.run(
        [sys.executable, "-m", "spikeport.deploy", "stream", "net.safetensors", "-i", "-", "--json"],
        cwd=home,
        input=b"".join(pack_events(events)),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_events"] == len(events)


def test_stream_takes_udp(home: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    events = read_events(home / "many" / "1.npz")

    def send() -> None:
        time.sleep(0.4)
        send_events([events], ("127.0.0.1", port), events_per_s=50_000)

    thread = threading.Thread(target=send)
    thread.start()
    done = spikeport("stream", "net.safetensors", "-i", f"udp://127.0.0.1:{port}?idle=5", "--json", cwd=home)
    thread.join()
    assert answer(done)["n_events"] == len(events)
    assert f"udp://127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (("evaluate", "net.safetensors", "--data", "many", "--metrics", "accurcy"), 2, "Try 'accuracy'"),
        (("evaluate", "net.safetensors", "--data", "many"), 2, "expected a label"),
        (("evaluate", "net.safetensors", "--data", "digits:x"), 2, "Try digits"),
        (("evaluate", "digits", "--data", "many"), 2, "2x34x34, found events of a sensor of 16x16"),
        (("evaluate", "net.safetensors", "--data", "many", "--readout", "lst"), 2, "Try 'last'"),
        (("evaluate", "net.safetensors", "--device", "virtual:speck2fdevkit"), 2, "expected a chip program"),
        (("evaluate", "absent.safetensors"), 6, "found nothing"),
        (("predict", "net.safetensors", "-i", "absent.npz"), 6, "absent.npz"),
        (("predict", "net.safetensors", "-i", "many", "--out", "x.txt"), 2, "ends in"),
        (("stream", "net.safetensors", "-i", "many/0.npz", "--every", "1h"), 2, "Try 10ms"),
        (("stream", "net.safetensors", "-i", "many/0.npz", "--every", "1ms"), 2, "no more often"),
        (("stream", "net.safetensors", "-i", "tcp://x"), 6, "udp://127"),
        (("stream", "net.safetensors", "-i", "many/0.npz", "--sensor", "big"), 6, "--sensor"),
        (("stream", "net.safetensors", "-i", "many/0.npz", "--plot", "x.gif"), 2, ".svg"),
        (("stream", "digits", "-i", "many/0.npz"), 2, "2x34x34"),
    ],
)
def test_what_does_not_fit_is_one_sentence(home: Path, arguments: Any, code: int, match: str) -> None:
    done = spikeport(*arguments, cwd=home)
    assert done.returncode == code, done.stderr
    assert match in done.stderr
    assert "Traceback" not in done.stderr


def test_every_is_a_time_or_a_number_of_events() -> None:
    found = [parse_every(text) for text in ("10ms", "500us", "0.5s", "2.5ms", "500", " 7 ")]
    assert found == [(10_000, None), (500, None), (500_000, None), (2500, None), (None, 500), (None, 7)]
    for text in ("", "0", "0ms", "1.5", "ms", "-3", "1h", "10 ms"):
        with pytest.raises(InferenceError, match="--every"):
            parse_every(text)


def test_a_recurrent_lif_classifier_is_evaluated_and_streamed_from_its_file(tmp_path: Path) -> None:
    data = symbols(4)
    height, width = data.recordings[0].sensor_size
    module = RecurrentLif(2 * height * width, 10, len(data.classes))
    LifPredictor(module, (2, height, width), data.classes).save(tmp_path / "lif.safetensors")
    write_events(data.recordings[0], tmp_path / "symbol.npz")
    done = spikeport("evaluate", "lif.safetensors", "--data", "symbols", "--limit", "8", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_samples"] == 8
    done = spikeport("stream", "lif.safetensors", "--input", "symbol.npz", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_events"] == len(data.recordings[0])
    done = spikeport("evaluate", "lif.safetensors", "--data", "symbols", "--step-us", "500", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected no --step-us, as a recurrent lif has times of its own" in done.stderr
