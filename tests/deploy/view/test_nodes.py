"""Processing nodes: any cut into pieces gives the same, nothing is lost, the majority is the vendor's."""

from __future__ import annotations

import itertools
import types
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import RecordingError, SettingError
from spikeport.deploy.readout import count_classes, output_shape
from spikeport.deploy.types import Destination, DvsConfig, Program
from spikeport.deploy.view.nodes import (
    Collection,
    Counts,
    Node,
    Tick,
    chain,
    collect,
    count,
    crop,
    decimate,
    majority,
    output_spikes,
    rescale,
)
from spikeport.deploy.view.types import OutputSpikes
from spikeport.deploy.virtual.filters import MajorityReadoutNode, SpikeCountNode
from spikeport.models.events import Events
from tests.deploy.programs import make_core, random_case, random_events

CUTS = st.lists(st.integers(0, 12_000), max_size=6)


def some_events(seed: int, n: int = 60, size: tuple[int, int] = (9, 7)) -> Events:
    return random_events(np.random.default_rng(seed), (2, *size), n)


def some_spikes(seed: int, n: int, *, until_us: int = 10_000) -> OutputSpikes:
    rng = np.random.default_rng(seed)
    return OutputSpikes(np.sort(rng.integers(0, until_us, n)), rng.integers(-1, 4, n).astype(np.int16))


def ticks(spikes: OutputSpikes, cuts: Sequence[int], *, stop_us: int) -> list[Tick]:
    """Return the spikes in ticks that end at ``cuts``, also several at one time, and at ``stop_us``."""
    bounds = [0, *sorted(cut for cut in cuts if cut <= stop_us), stop_us]
    places = [np.searchsorted(spikes.t_us, bound) for bound in bounds]
    return [
        Tick(start, stop, OutputSpikes(spikes.t_us[first:last], spikes.label[first:last]))
        for (start, first), (stop, last) in itertools.pairwise(zip(bounds, places, strict=True))
    ]


def pieces(events: Events, cuts: Sequence[int]) -> list[Events]:
    bounds = [0, *sorted(cut % (len(events) + 1) for cut in cuts), len(events)]
    return [events.part(first, last) for first, last in itertools.pairwise(bounds)]


def passed(node: Node, parts: Sequence[Events]) -> NDArray[np.int64]:
    """Return the columns of what a node makes of events, its sensor size in the first row."""
    found = [one for part in parts for one in node(part)]
    rows = [np.stack([one.y, one.x, one.p, one.t_us], axis=1) for one in found]
    return np.concatenate([np.array([[*found[0].sensor_size, 0, 0]]), *rows])


def counts_of(*numbers: int) -> Counts:
    return Counts(0, 0, 1, np.array(numbers, np.int64))


# events


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 9), CUTS)
def test_decimate_passes_the_first_of_each_group_however_they_come(seed: int, a: int, b: int, cuts: list[int]) -> None:
    keep, of = min(a, b), max(a, b)
    events = some_events(seed, 50)
    found = passed(decimate(keep, of), pieces(events, cuts))
    expected = [i for i in range(50) if i % of < keep]
    assert len(expected) == 50 // of * keep + min(50 % of, keep)
    assert np.array_equal(found[1:, 3], events.t_us[expected])
    assert np.array_equal(found[1:, 0], events.y[expected])


def test_decimate_starts_again_when_it_is_reset() -> None:
    events, node = some_events(1, 5), decimate(1, 4)
    first = passed(node, [events])
    node.reset()
    assert np.array_equal(passed(node, [events]), first)
    assert decimate(4, 4)(events) == (events,)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.tuples(st.integers(1, 40), st.integers(1, 40)), CUTS)
def test_rescale_keeps_every_event_and_divides_whole_numbers(seed: int, to: tuple[int, int], cuts: list[int]) -> None:
    events = some_events(seed)
    found = passed(rescale((9, 7), to), pieces(events, cuts))
    assert tuple(found[0, :2]) == to
    expected = [(int(y) * to[0] // 9, int(x) * to[1] // 7) for y, x in zip(events.y, events.x, strict=True)]
    assert found[1:, :2].tolist() == [list(place) for place in expected]
    assert np.array_equal(found[1:, 2:], np.stack([events.p, events.t_us], axis=1))


def test_rescale_to_the_same_size_changes_nothing_and_a_large_sensor_does_not_overflow() -> None:
    events = some_events(0)
    assert rescale((9, 7), (9, 7))(events) == (events,)
    corner = Events(np.array([1279]), np.array([719]), np.array([1]), np.array([0]), (720, 1280))
    (found,) = rescale((720, 1280), (128, 128))(corner)
    assert (found.y[0], found.x[0]) == (127, 127)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 8), st.integers(0, 6), st.booleans(), CUTS)
def test_crop_passes_what_is_inside(seed: int, top: int, left: int, shift: bool, cuts: list[int]) -> None:
    events, box = some_events(seed), (top, 9, left, 7)
    found = passed(crop(box, shift), pieces(events, cuts))
    columns = zip(events.y.tolist(), events.x.tolist(), events.p.tolist(), events.t_us.tolist(), strict=True)
    by, bx = (top, left) if shift else (0, 0)
    expected = [[y - by, x - bx, p, t] for y, x, p, t in columns if y >= top and x >= left]
    assert found[1:].tolist() == expected
    assert tuple(found[0, :2]) == ((9 - top, 7 - left) if shift else (9, 7))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 3), CUTS)
def test_chains_of_chains_are_the_chain_of_all(seed: int, split: int, cuts: list[int]) -> None:
    def nodes() -> list[Node]:
        return [decimate(2, 3), crop((1, 9, 0, 6)), decimate(3, 4), rescale((9, 7), (5, 4))]

    parts = pieces(some_events(seed), cuts)
    flat, some = chain(*nodes()), nodes()
    nested = chain(chain(*some[:split]), chain(chain(*some[split:])))
    expected = passed(flat, parts)
    assert np.array_equal(passed(nested, parts), expected)
    flat.reset()
    nested.reset()
    assert np.array_equal(passed(flat, parts), expected)
    assert np.array_equal(passed(nested, parts), expected)


def test_an_empty_chain_passes_everything() -> None:
    events = some_events(0)
    assert chain()(events) == (events,)
    assert chain().finish() == ()


# spikes


def same(one: Sequence[Counts], other: Sequence[Counts]) -> bool:
    return len(one) == len(other) and all(a.same(b) for a, b in zip(one, other, strict=True))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 40), st.integers(300, 4000), CUTS, st.integers(0, 11_000))
def test_ticks_cut_anywhere_give_the_same_decisions(
    seed: int, n: int, interval_us: int, cuts: list[int], stop_us: int
) -> None:
    spikes = some_spikes(seed, n)
    stop_us = max(stop_us, int(spikes.t_us.max(initial=0)) + 1)

    def decisions(parts: list[Tick]) -> list[Counts]:
        node = chain(collect(interval_us), chain(count(4), majority(2, 0, 5, default=3)))
        return [*itertools.chain(*map(node, parts)), *node.finish(), *node.finish()]

    found = decisions(ticks(spikes, cuts, stop_us=stop_us))
    assert same(found, decisions(ticks(spikes, [], stop_us=stop_us)))
    n_whole, rest = divmod(stop_us, interval_us)
    assert [one.index for one in found] == list(range(n_whole + (rest > 0)))
    assert [one.is_open for one in found] == [False] * n_whole + [True] * (rest > 0)
    assert all(one.stop_us - one.start_us == interval_us for one in found[:n_whole])
    for one in found:
        inside = (spikes.t_us >= one.start_us) & (spikes.t_us < one.stop_us)
        assert one.counts.tolist() == [int((spikes.label[inside] == label).sum()) for label in range(4)]
    assert sum(int(one.counts.sum()) for one in found) == int((spikes.label >= 0).sum())


def test_late_spikes_count_in_the_open_window_and_early_ones_wait() -> None:
    node = collect(100, start_us=250)
    spikes = OutputSpikes(np.array([120, 210, 290, 430]), np.zeros(4, np.int16))
    assert node.start_us == 200
    (first, second) = node(Tick(250, 400, spikes))
    assert (first.index, first.spikes.t_us.tolist()) == (2, [120, 210, 290])
    assert (second.index, second.spikes.t_us.tolist()) == (3, [])
    assert node.has_begun  # by the spike that waits
    late = OutputSpikes(np.array([10]), np.zeros(1, np.int16))
    assert node(Tick(400, 450, late)) == ()
    (rest,) = node.finish()
    assert (rest.stop_us, rest.is_open, sorted(rest.spikes.t_us.tolist())) == (450, True, [10, 430])
    assert node.finish() == ()


def test_a_new_interval_begins_with_the_next_window() -> None:
    node = collect(100)
    none = OutputSpikes(np.zeros(0, np.int64), np.zeros(0, np.int16))
    node.set_interval(80)
    assert node.stop_us == 80  # nothing had begun
    node(Tick(0, 10, none))
    node.set_interval(50)
    assert node.stop_us == 80
    found = node(Tick(10, 210, none))
    assert [(one.index, one.start_us, one.stop_us) for one in found] == [
        (0, 0, 80),
        (1, 80, 100),
        (2, 100, 150),
        (3, 150, 200),
    ]
    node.reset(120)
    assert (node.start_us, node.stop_us) == (100, 150)
    node.reset()
    assert (node.start_us, node.stop_us) == (0, 50)


def test_ticks_that_go_back_are_refused() -> None:
    node = collect(100)
    none = OutputSpikes(np.zeros(0, np.int64), np.zeros(0, np.int16))
    node(Tick(0, 100, none))
    with pytest.raises(RecordingError, match=r"expected spikes from 100 us on, found those of 50 to 60 us.*reset"):
        node(Tick(50, 60, none))
    with pytest.raises(RecordingError, match="found those of 200 to 150 us"):
        node(Tick(200, 150, none))


# decisions


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=6), st.integers(0, 8), st.integers(0, 20), st.integers(0, 30))
def test_majority_is_that_of_a_slow_search(numbers: list[int], threshold: int, low: int, high: int) -> None:
    (found,) = majority(threshold, low, high, default=7)(counts_of(*numbers))
    expected, best = None, 0
    for index, number in enumerate(numbers):
        if number > best:
            expected, best = index, number
    if not low <= sum(numbers) <= high or best < threshold:
        expected = None
    assert found.winner == expected
    assert found.label == (7 if expected is None else expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), max_size=25),
    st.integers(1, 5),
    st.integers(0, 1),
    st.integers(0, 9),
    st.integers(0, 19),
)
def test_counts_and_majority_are_those_of_the_virtual_board(
    features: list[int], n: int, threshold: int, low: int, extra: int
) -> None:
    high = low + extra
    spikes = [types.SimpleNamespace(feature=feature, timestamp=5) for feature in features]
    counter, decider = SpikeCountNode(), MajorityReadoutNode()
    for node in (counter, decider):
        node.set_feature_count(n)
    decider.set_default_feature(9)
    decider.set_threshold_low(low)
    decider.set_threshold_high(high)
    collection = Collection(0, 0, 9, OutputSpikes(np.full(len(features), 5), np.array(features, np.int16)))
    (found,) = chain(count(n), majority(threshold, low, high, default=9))(collection)
    assert found.counts.tolist() == counter.counts(spikes)
    assert found.label == decider._apply([spikes])[0].feature


# recordings


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_the_spikes_of_a_recording_are_counted_as_its_classes(seed: int) -> None:
    case = random_case(seed)
    recording = Emulator(case.program).run(case.events, "all")
    spikes = output_spikes(recording.spikes, case.program)
    assert np.all(np.diff(spikes.t_us) >= 0)
    if output_shape(case.program) is not None:
        expected = count_classes(recording, case.program)
        node = chain(collect(1000), count(len(expected)))
        tick = Tick(0, int(case.events.t_us[-1]) + 1, spikes)
        found = np.sum([one.counts for one in (*node(tick), *node.finish())], axis=0)
        assert np.array_equal(found, expected)


def test_spikes_of_a_program_without_an_output_are_none_and_a_missing_core_is_named() -> None:
    core = make_core(4, destinations=())
    silent = Program("speck2fdevkit", (core,), (4,), DvsConfig((1, 1, 1)))
    assert len(output_spikes({}, silent).t_us) == 0
    ending = Program("speck2fdevkit", (make_core(4, destinations=(Destination(None),)),), (4,), DvsConfig((1, 1, 1)))
    with pytest.raises(RecordingError, match=r"found none of \[4\]"):
        output_spikes({}, ending)


# what is refused


def test_nodes_refuse_numbers_that_make_no_sense() -> None:
    for keep, of in ((0, 1), (3, 2), (-1, -1)):
        with pytest.raises(SettingError, match=f"found {keep} of {of}"):
            decimate(keep, of)
    with pytest.raises(SettingError, match=r"sizes \(height, width\)"):
        rescale((0, 4), (4, 4))
    with pytest.raises(RecordingError, match="sensor of 4x4, found 9x7"):
        rescale((4, 4), (2, 2))(some_events(0))
    with pytest.raises(SettingError, match=r"found rows 3:3, columns 0:2"):
        crop((3, 3, 0, 2))
    with pytest.raises(SettingError, match=r"within the sensor of 9x7, found rows 0:10"):
        crop((0, 10, 0, 2))(some_events(0))
    for interval in (0, 1.5, float("nan")):
        with pytest.raises(SettingError, match="interval of 1 or more whole us"):
            collect(interval)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="0 or more features"):
        count(-1)
