"""What a virtual camera sees, when, and how it is told what to look at."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeport.deploy.virtual import VirtualBoardError, driver, install, installed, uninstall
from spikeport.deploy.virtual.camera import CAMERA_VARIABLE, Camera, Scene, find_scene
from spikeport.deploy.virtual.clock import GRACE_US
from spikeport.models import write_events
from spikeport.models.errors import ModelsError
from spikeport.models.events import Events

from .bench import Bench
from .writer import configured, one_neuron, program_of_one

START_US = 10_000_000


def recording(n_events: int, seed: int = 0, size: tuple[int, int] = (128, 128)) -> Events:
    rng = np.random.default_rng(seed)
    y, x, p = (rng.integers(0, edge, n_events) for edge in (*size, 2))
    return Events(x, y, p, 500 + np.sort(rng.integers(0, 100 * n_events, n_events)), size)


@given(st.integers(1, 60), st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 50)), max_size=25))
def test_each_event_is_seen_once_in_order_at_its_time_over_and_over(n: int, looks: list[tuple[int, int]]) -> None:
    events = recording(n)
    camera = Camera(Scene(events))
    camera.start(START_US)
    now_us, seen = START_US, []
    for later_us, n_most in looks:
        now_us += later_us
        part = camera.take(now_us, n_most)
        assert len(part) <= n_most
        assert all(t_us <= now_us for *_, t_us in part)
        next_us = camera.next_us
        assert next_us is not None
        assert len(part) == n_most or next_us > now_us
        seen += part
    times = [t_us for *_, t_us in seen]
    assert times == sorted(times)
    for index, (p, y, x, t_us) in enumerate(seen):
        turn, at = divmod(index, n)
        assert (p, y, x) == (events.p[at], events.y[at], events.x[at])
        if not turn:
            assert t_us - START_US == events.t_us[at] - events.t_us[0]


def test_a_chip_that_cannot_keep_up_sees_every_event_later() -> None:
    events = recording(40)
    camera = Camera(Scene(events))
    camera.start(START_US)
    late_us = START_US + GRACE_US + 50_000
    seen = camera.take(late_us, 5)
    assert [row[:3] for row in seen] == [(events.p[i], events.y[i], events.x[i]) for i in range(len(seen))]
    assert seen[0][3] == late_us
    camera.stop()
    assert camera.next_us is None
    assert camera.take(late_us + 10**6, 5) == []


def test_what_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    for wrong in (recording(3, size=(129, 20)), recording(0)):
        with pytest.raises(VirtualBoardError, match="virtual camera: expected a recording with events, of a sensor of"):
            Scene(wrong).check("x")
    with pytest.raises(VirtualBoardError, match=r"device 'x': the camera .* none is set\. Try SPIKEPORT_CAMERA="):
        Scene(None).check("x")
    with pytest.raises(ModelsError):
        Scene(tmp_path / "missing.npz").check("x")


def test_cameras_look_at_what_is_installed_or_else_at_what_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(recording(7), tmp_path / "seven.npz")
    monkeypatch.setenv(CAMERA_VARIABLE, str(tmp_path / "seven.npz"))
    named = find_scene().events()
    assert named is not None
    assert len(named) == 7
    with installed(camera=recording(9)):
        found = find_scene().events()
        assert found is not None
        assert len(found) == 9
    install(camera=str(tmp_path / "seven.npz"))
    uninstall()
    monkeypatch.delenv(CAMERA_VARIABLE)
    assert find_scene().events() is None
    assert driver(["speck2fdevkit"]).virtual.scene.events() is None


def test_the_sensor_sees_only_while_the_input_stage_lets_it_in() -> None:
    samna = driver(["speck2fdevkit"], camera=recording(400))
    bench = Bench(samna)
    configuration = configured(program_of_one(one_neuron()))
    stage = configuration.dvs_layer
    for is_on in (False, True, False):
        stage.raw_monitor_enable = is_on
        stage.pass_sensor_events = is_on
        bench.apply(configuration)
        if is_on:
            seen = bench.sink.get_n_events(50, 5000)
            assert {type(event).__name__ for event in seen} == {"DvsEvent"}
        else:
            before = bench.board.engine.counts.n_in
            time.sleep(0.03)
            assert bench.board.engine.counts.n_in == before
    samna.virtual.close_all()
