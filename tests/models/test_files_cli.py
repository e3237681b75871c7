"""``spikeport info`` and ``spikeport import``, as people use them; and the survey behind the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeport.models.errors import EventFileError
from spikeport.models.events import Events
from spikeport.models.files import read_events, write_events
from spikeport.models.survey import survey_events

from ..invoke import spikeport  # noqa: TID252
from ..shared import SHARED, needs  # noqa: TID252


def some_events(n: int = 500, size: tuple[int, int] = (34, 34), start_us: int = 0) -> Events:
    rng = np.random.default_rng(0)
    x, y, p = (rng.integers(0, limit, n) for limit in (size[1], size[0], 2))
    return Events(x, y, p, start_us + np.cumsum(rng.integers(0, 90, n)), size)


def broken_file(path: Path) -> Path:
    columns = {"x": [1, 2, 40, 3], "y": [4, 5, 6, 7], "p": [0, 1, 0, -1], "t_us": [10, 30, 20, 40]}
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    np.savez(path, **arrays, sensor_size=np.array([34, 34]))
    return path


def test_info_shows_what_is_in_a_file(tmp_path: Path) -> None:
    events = some_events(size=(480, 640), start_us=1_600_000_000_000_000)
    write_events(events, tmp_path / "r.aedat4")
    done = spikeport("info", "r.aedat4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("AEDAT 4 (aedat4)", "480x640 (file)", "500", "since 1970", "header: compression"):
        assert text in done.stdout
    picture = done.stdout.rstrip("\n").splitlines()[-24:]
    assert any("@" in line for line in picture)
    assert max(map(len, picture)) == 64


def test_info_as_json_is_one_object(tmp_path: Path) -> None:
    events = some_events()
    write_events(events, tmp_path / "r.bin")
    done = spikeport("info", "r.bin", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["n_events"] == 500
    assert found["sensor_size"] == [34, 34]
    assert found["sensor_from"] == "assumed"
    assert found["duration_us"] == events.duration_us
    assert found["on_share"] == events.p.mean()
    assert found["rate_hz"] == pytest.approx(500 / events.duration_us * 1e6)
    assert found["repairs"] == {}


def test_info_names_the_repairs_and_import_makes_them(tmp_path: Path) -> None:
    broken_file(tmp_path / "r.npz")
    done = spikeport("info", "r.npz", cwd=tmp_path)
    assert done.returncode == 0
    flags = ["--sort", "--crop", "--polarity", "signed"]
    assert f"Next: spikeport import r.npz r-repaired.npz {' '.join(flags)}" in done.stderr
    refused = spikeport("import", "r.npz", "out.raw", cwd=tmp_path)
    assert refused.returncode == 6
    assert "p is -1, expected a polarity" in refused.stderr
    assert not (tmp_path / "out.raw").exists()
    same = spikeport("import", "r.npz", "r.npz", *flags, cwd=tmp_path)
    assert same.returncode == 2
    done = spikeport("import", "r.npz", "out.raw", *flags, "--from-zero", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["n_events"] == 3
    assert summary["format"] == "evt3"
    assert summary["counts"] == {
        "polarities of -1 taken for 0": 1,
        "events outside the sensor left out": 1,
        "microseconds taken off every time": 10,
    }
    assert read_events(tmp_path / "out.raw").t_us.tolist() == [0, 20, 30]


def test_info_of_a_damaged_file_shows_what_is_before_the_damage(tmp_path: Path) -> None:
    write_events(some_events(), tmp_path / "r.raw", format="evt2")
    with (tmp_path / "r.raw").open("ab") as file:
        file.write(b"\x00\x00\x00\x50")
    done = spikeport("info", "r.raw", "--json", cwd=tmp_path)
    assert done.returncode == 6
    found = json.loads(done.stdout)
    assert found["n_events"] == 500
    assert "expected a word of EVT2, found 0x50000000" in found["damage"]
    assert "Error: r.raw: byte" in done.stderr
    (tmp_path / "none.raw").write_bytes(b"% evt 3.0\n")
    assert spikeport("info", "none.raw", cwd=tmp_path).returncode == 6


def test_lines_of_text_are_imported(tmp_path: Path) -> None:
    events = some_events()
    np.savetxt(tmp_path / "r.txt", np.stack([events.t_us / 1e6, events.x, events.y, events.p], 1), "%.9f %d %d %d")
    options = ("--columns", "t x y p", "--time-unit", "s", "--sensor", "34x34")
    done = spikeport("import", "r.txt", "r.h5", *options, "--out-format", "dsec", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Next: spikeport info r.h5" in done.stderr
    assert read_events(tmp_path / "r.h5").same(events)


def test_a_dry_run_checks_everything_and_writes_nothing(tmp_path: Path) -> None:
    write_events(some_events(), tmp_path / "r.npz")
    done = spikeport("import", "r.npz", "r.csv", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "Dry run" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["r.npz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "r.npz", "r.mp4"), "ends in .bin"),
        (("import", "r.npz", "r.csv", "--crop", "--clip"), "found both"),
        (("import", "r.npz", "r.csv", "--sensor", "34"), "expected HEIGHTxWIDTH"),
        (("import", "r.npz", "r.csv", "--out-format", "evt9"), "expected one of nmnist"),
        (("import", "r.npz", "gone/r.csv"), "expected a folder"),
        (("info", "r.npz", "--format", "evt9"), "expected one of nmnist"),
        (("info", "gone.npz"), "found nothing"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write_events(some_events(), tmp_path / "r.npz")
    done = spikeport(*arguments, cwd=tmp_path)
    assert done.returncode in (2, 6)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_survey_counts_without_believing(tmp_path: Path) -> None:
    found = survey_events(broken_file(tmp_path / "r.npz"))
    assert found.repairs == {"sort": 1, "crop": 1, "polarity=signed": 1}
    assert (found.n_events, found.first_us, found.last_us, found.edges) == (4, 10, 40, (40, 7))
    np.savez(tmp_path / "q.npz", x=[200], y=[5], p=[7], t=[-4])
    unknown = survey_events(tmp_path / "q.npz")
    assert unknown.sensor_size is None
    assert unknown.sensor_from is None
    assert unknown.repairs == {"polarity=drop": 1, "from_zero": 1}
    assert unknown.rate_hz is None
    assert survey_events(tmp_path / "q.npz", sensor_size=(10, 10)).repairs["crop"] == 1
    path = tmp_path / "r.bin"
    write_events(some_events(), path)
    path.write_bytes(path.read_bytes()[:-2])
    assert survey_events(path).repairs == {"cut": 3}
    np.savez(tmp_path / "no.npz", x=[2], y=[5], p=[1], t=[4], sensor_size=[5, 0])
    with pytest.raises(EventFileError, match="found 5x0"):
        survey_events(tmp_path / "no.npz")


@needs("formats")
def test_a_survey_of_real_files() -> None:
    for name, form, n_events, size in (
        ("expelliarmus_evt2_sample.raw", "evt2", 539_481, (480, 640)),
        ("expelliarmus_evt3_sample.raw", "evt3", 219_596, (720, 1280)),
        ("tonic_sample.aedat4", "aedat4", 111_954, (240, 320)),
        ("sample_ncars.dat", "dat", 2009, (128, 128)),
        ("sample_aedat_header.aedat", "aedat2", 0, (260, 346)),
    ):
        found = survey_events(SHARED / "formats" / name)
        assert (found.format, found.n_events, found.sensor_size, found.damage) == (form, n_events, size, None)
        assert found.repairs == {}
