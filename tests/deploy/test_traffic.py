"""Peak rates of cores: over whole recordings the emulator's counts, over windows the naive maximum."""

from __future__ import annotations

import pytest

from spikeport.deploy import Emulator
from spikeport.deploy.errors import RecordingError
from spikeport.deploy.traffic import find_core_peaks

from .programs import random_case


def test_one_window_over_everything_holds_what_the_emulator_counted() -> None:
    n_compared = 0
    for seed in range(60):
        case = random_case(seed)
        recording = Emulator(case.program).run(case.events, record="all")
        whole_us = int(case.events.t_us[-1]) + 1
        report = find_core_peaks(case.program, recording, events=case.events, window_us=whole_us)
        for core, peaks in zip(case.program.cores, report.layers, strict=True):
            assert peaks.sent.n == recording.n_spikes[core.core] * len(core.destinations)
            assert peaks.received.n == recording.n_events[core.core] + recording.n_dropped[core.core]
            if not recording.n_dropped[core.core]:
                assert peaks.synops.n == recording.synops[core.core]
                n_compared += recording.synops[core.core] > 0
    assert n_compared > 20


def test_a_narrow_window_is_the_naive_maximum() -> None:
    case = random_case(3)
    recording = Emulator(case.program).run(case.events, record="all")
    times = case.events.t_us
    for window_us in (1, 300, 2_000):
        report = find_core_peaks(case.program, recording, events=case.events, window_us=window_us)
        naive = max(int(((times >= start) & (times < start + window_us)).sum()) for start in times)
        assert report.input.n == naive


def test_a_recording_without_the_spikes_of_a_core_is_refused() -> None:
    cases = (random_case(seed) for seed in range(60))
    case = next(case for case in cases if not all(core.monitor for core in case.program.cores))
    recording = Emulator(case.program).run(case.events)
    with pytest.raises(RecordingError, match=r'record="all"'):
        find_core_peaks(case.program, recording, events=case.events, window_us=1000)
