"""A show that is recorded, and the show of its session: the same counters, windows and classes."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.view.recorder import SessionRecorder
from spikeport.deploy.view.replay import ReplayEngine, open_session
from spikeport.deploy.view.settings import ViewSettings
from spikeport.deploy.view.show import Show
from tests.deploy.programs import Case, random_events

from .played import Log, open_show, same_windows
from .taped import FACTS, PROGRAM, SENSOR

WISHES = ("step", "knobs", "roi", "seek", "watch")


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 100_000), st.lists(st.sampled_from(WISHES), max_size=6), st.integers(0, 2))
def test_a_session_shows_what_was_shown(seed: int, wishes: list[str], n_before: int) -> None:
    case = Case(PROGRAM, random_events(np.random.default_rng(seed), (2, *SENSOR), 80), None)
    wished = ViewSettings(interval_ms=2.0, step_ms=1.5, speed=None, decimate=(3, 4))

    def recorder(path: Path) -> SessionRecorder:
        return SessionRecorder(path, PROGRAM, dataclasses.replace(FACTS, settings=show.settings))

    with tempfile.TemporaryDirectory() as folder:
        show, _ = open_show(case, wished, recorder=recorder)
        if n_before:
            show.step(n_before)
        log, begun = Log(), show.totals()
        show.record(Path(folder) / "session.npz")
        show.add_listener(log)
        for number, wish in enumerate(wishes):
            if wish == "knobs":
                show.set_knobs(interval_ms=3.0 + number, threshold=number)
            elif wish == "roi":
                show.set_roi((0, 2, 0, 1 + number % 2))
            elif wish == "seek":
                show.seek(2500 * number)
            elif wish == "watch":
                show.watch(case.program.cores[0].core)
            show.step(1 + number % 3)
        show.step(10**6)
        ended = show.totals()
        show.close()
        engine = ReplayEngine(open_session(Path(folder) / "session.npz"))
        again = Log()
        replay = Show(engine, engine.reels, settings=wished, listeners=[again])
        replay.start()
        replay.play()
        assert replay.wait(60)
        assert replay.position().problem is None
        totals = replay.totals()
        for name in ("n_offered", "n_left_out", "n_events", "n_output_spikes", "n_dropped", "synops"):
            assert getattr(totals, name) == getattr(ended, name) - getattr(begun, name), name
        assert replay.position().final == show.position().final
        if not n_before and "seek" not in wishes:
            assert same_windows(again.windows, log.windows)
            assert replay.so_far().tolist() == show.so_far().tolist()
        replay.close()
