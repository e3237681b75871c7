"""Graphs: chains, branches, names, builders, threads that end, waits that end; and each filter."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from spikeport.deploy.virtual import VirtualBoardError
from spikeport.deploy.virtual.filters import SpikeCollection
from spikeport.deploy.virtual.graph import Node

from .bench import Bench


def passed(samna: types.ModuleType, item: Any, events: Sequence[Any], **settings: Any) -> list[Any]:
    """Return what a node, set by methods and their arguments, gives for events."""
    graph = samna.graph.EventFilterGraph()
    source, node, sink = graph.sequential([Node(), item, samna.graph.JitSink()])
    for method, arguments in settings.items():
        getattr(node, method)(*arguments)
    graph.start()
    source.receive(list(events))
    graph.stop()
    found: list[Any] = sink.get_events()
    return found


def spikes(samna: types.ModuleType) -> list[Any]:
    kind = samna.speck2f.event.Spike
    return [kind(layer, feature, 1, 2, 10 * layer) for layer in (0, 1, 2) for feature in (0, 1)]


def test_chains_branch_and_merge(samna: types.ModuleType) -> None:
    graph = samna.graph.EventFilterGraph()
    kind = samna.speck2f.event.Spike
    source, first, sink = graph.sequential(
        [samna.graph.JitSource(kind), "Speck2fMemberSelect", samna.BasicSinkNode_speck2f_event_output_event()]
    )
    _, second, _ = graph.sequential([source, samna.graph.JitMemberSelect(), sink])
    first.set_white_list([0], "layer")
    second.set_white_list([2], "layer")
    assert graph.has_node(second)
    assert not graph.is_running
    assert graph.start()
    assert not graph.start()
    source.write(spikes(samna))
    assert graph.stop()
    assert not graph.stop()
    assert sorted(one.layer for one in sink.get_events()) == [0, 0, 2, 2]
    assert "virtual" in repr(graph)
    assert "virtual" in repr(first)


def test_what_is_written_to_a_stopped_graph_waits_for_its_start(samna: types.ModuleType) -> None:
    graph = samna.graph.EventFilterGraph()
    source, sink = graph.sequential([samna.graph.JitSource(samna.speck2f.event.Spike), samna.graph.JitSink()])
    source.write(spikes(samna))
    assert sink.is_empty()
    graph.start()
    assert sink.get_n_events(6, 5000) == spikes(samna)
    graph.stop()
    source.write(spikes(samna))
    graph.start()
    graph.stop()
    assert not sink.is_empty()
    sink.clear_events()
    assert sink.get_events() == []


def test_blocking_reads_end(samna: types.ModuleType) -> None:
    sink = samna.BasicSinkNode_speck2f_event_output_event()
    started = time.monotonic()
    assert sink.get_events_blocking(30) == []
    assert sink.get_n_events(1, 30) == []
    assert 0.05 < time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("chain", "kind", "said"),
    [
        (["Speck2fMemberSelekt"], VirtualBoardError, "no node is called 'Speck2fMemberSelekt'. Try one of"),
        ([3], TypeError, "expected nodes, names or builders"),
        ("Speck2fForward", TypeError, "expected a list of nodes"),
        (None, TypeError, "expected a list of nodes"),
    ],
)
def test_chains_that_make_no_sense_are_refused(
    samna: types.ModuleType, chain: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        samna.graph.EventFilterGraph().sequential(chain)


def test_builders_know_their_place(samna: types.ModuleType) -> None:
    graph = samna.graph.EventFilterGraph()
    with pytest.raises(VirtualBoardError, match="JitMemberSelect cannot be the first"):
        graph.sequential([samna.graph.JitMemberSelect()])
    with pytest.raises(VirtualBoardError, match="must be the first"):
        graph.sequential(["Speck2fForward", samna.graph.JitSource(samna.speck2f.event.Spike)])
    with pytest.raises(VirtualBoardError, match="no C\\+\\+ compiler"):
        samna.graph.JitFilter("Mine", "class Mine {};")
    with pytest.raises(VirtualBoardError, match="JitFunctionFilter 'f'"):
        samna.graph.JitFunctionFilter("f", "auto filterFunction")
    calls: tuple[Callable[[], Any], ...] = (
        lambda: samna.graph.JitSpikeCollection(),
        lambda: samna.graph.JitSpikeCount(3),
        lambda: samna.graph.JitMemberSelect(samna.ui.Event),
        lambda: samna.graph.JitSource("Spike"),
    )
    for wrong in calls:
        with pytest.raises(TypeError, match="expected"):
            wrong()


def test_nodes_of_different_chips_do_not_join(samna: types.ModuleType) -> None:
    board = samna.device.open_device("Speck2eDevKit")
    graph = samna.graph.EventFilterGraph()
    for chain in (
        [samna.BasicSourceNode_speck2f_event_input_event(), board.get_model_sink_node()],
        [board.get_model_source_node(), samna.BasicSinkNode_speck2f_event_output_event()],
    ):
        with pytest.raises(VirtualBoardError, match="Try nodes of the same chip"):
            graph.sequential(chain)


@pytest.mark.parametrize("wrong", [None, 3, "spikes", [3], [None]])
def test_only_events_are_written(samna: types.ModuleType, wrong: Any) -> None:
    with pytest.raises(TypeError, match="virtual samna"):
        samna.BasicSourceNode_speck2f_event_input_event().write(wrong)


def test_a_node_that_fails_stops_its_graph_and_says_so(samna: types.ModuleType) -> None:
    graph = samna.graph.EventFilterGraph()
    source, _, _ = graph.sequential([Node(), "MeasurementToVizConverter", samna.graph.JitSink()])
    graph.start()
    source.receive(spikes(samna))
    end = time.monotonic() + 5
    while graph.is_running and time.monotonic() < end:
        time.sleep(0.005)
    with pytest.raises(VirtualBoardError, match="a node failed: AttributeError"):
        graph.stop()
    assert graph.start()
    assert graph.stop()


def test_threads_end_with_their_graphs(samna: types.ModuleType) -> None:
    graph = samna.graph.EventFilterGraph()
    graph.sequential([samna.graph.JitSource(samna.speck2f.event.Spike), samna.graph.JitSink()])
    graph.start()
    (thread,) = (one for one in threading.enumerate() if one is graph._thread)
    graph.stop()
    assert not thread.is_alive()
    graph.start()
    reference = weakref.ref(graph)
    del graph
    end = time.monotonic() + 5
    while reference() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert reference() is None


def test_an_interpreter_with_running_graphs_ends() -> None:
    code = (
        "from spikeport.deploy.virtual import driver\n"
        "samna = driver(['speck2fdevkit'])\n"
        "board = samna.device.open_device('Speck2fDevKit')\n"
        "sink = samna.graph.sink_from(board.get_model_source_node())\n"
        "source = samna.graph.source_to(board.get_model_sink_node())\n"
        "board.get_power_monitor().start_auto_power_measurement(50)\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


# filters


def test_type_filters(samna: types.ModuleType) -> None:
    kinds = samna.speck2f.event
    events = [kinds.Spike(1, 2, 3, 4), kinds.NeuronValue(1, 2, 3), kinds.DvsEvent(1, 2, 3)]
    name = "Speck2fOutputEventTypeFilter"
    assert passed(samna, name, events) == events
    assert passed(samna, name, events, set_desired_type=["speck2f::event::Spike"]) == events[:1]
    assert passed(samna, name, events, set_rejected_type=["speck2f::event::Spike"]) == events[1:]
    assert (
        passed(samna, samna.graph.JitEventTypeFilter(), events, set_desired_type=["speck2f::event::DvsEvent"])
        == events[2:]
    )
    (node,) = samna.graph.EventFilterGraph().sequential([name])
    assert "speck2f::event::NeuronValue" in node.get_available_types()
    node.set_desired_type("speck2f::event::Spike")
    assert (node.get_desired_type(), node.get_rejected_type()) == ("speck2f::event::Spike", "")
    with pytest.raises(VirtualBoardError, match="type filter: expected one of"):
        node.set_rejected_type("speck2e::event::Spike")


def test_member_select_passes_listed_values(samna: types.ModuleType) -> None:
    events = spikes(samna)
    assert passed(samna, "Speck2fOutputMemberSelect", events) == events
    chosen = passed(samna, samna.graph.JitMemberSelect(), events, set_white_list=[[1], "feature"])
    assert chosen == [one for one in events if one.feature == 1]
    assert passed(samna, "Speck2fInputMemberSelect", events, set_white_list=[[1], "no_such_attribute"]) == []
    (node,) = samna.graph.EventFilterGraph().sequential(["Speck2fMemberSelect"])
    with pytest.raises(TypeError):
        node.set_white_list("12", "layer")


def test_events_are_shown_counted_and_decided_on(samna: types.ModuleType) -> None:
    ui, events = samna.ui, spikes(samna)
    viz = passed(samna, samna.graph.JitDvsEventToViz(ui.Event), [*events[:2], samna.speck2f.event.DvsEvent(1, 5, 6, 7)])
    assert viz == [ui.DvsEvent(0, 1, 2, 0), ui.DvsEvent(1, 1, 2, 0), ui.DvsEvent(1, 5, 6, 7)]
    collection = [*events, events[1]]
    counts = passed(samna, samna.graph.JitSpikeCount(ui.Event), [collection, []], set_feature_count=[3])
    assert [(one.feature, one.count) for one in counts] == [(0, 3), (1, 4), (2, 0), (0, 0), (1, 0), (2, 0)]
    assert isinstance(counts[0], ui.Event)
    decide = samna.graph.JitMajorityReadout(ui.Event)
    settings = {"set_feature_count": [2], "set_default_feature": [9]}
    assert [one.feature for one in passed(samna, decide, [collection, []], **settings)] == [1, 9]
    for low, high in ((8, 100), (0, 6)):
        limits = {"set_threshold_low": [low], "set_threshold_high": [high]}
        assert [one.feature for one in passed(samna, decide, [collection], **settings, **limits)] == [9]


def test_spikes_are_collected_over_intervals(samna: types.ModuleType) -> None:
    graph = samna.graph.EventFilterGraph()
    spike = samna.speck2f.event.Spike
    source, node, sink = graph.sequential([Node(), samna.graph.JitSpikeCollection(spike), samna.graph.JitSink()])
    node.set_interval_milli_sec(60)
    assert node.get_interval_milli_sec() == 60
    assert isinstance(node, SpikeCollection)
    graph.start()
    source.receive([*spikes(samna), samna.speck2f.event.DvsEvent(0, 0, 0)])
    first, second = sink.get_n_events(2, 5000)
    graph.stop()
    assert (list(first), list(second)) == (spikes(samna), [])
    wrong: Any
    for wrong in (0, 1.5, True, "10"):
        with pytest.raises(TypeError):
            node.set_interval_milli_sec(wrong)


def test_measurements_are_shown_in_milliwatts(samna: types.ModuleType) -> None:
    watt = samna.unifirm.modules.events.PowerMeasurement(2, 0.004, 9)
    assert passed(samna, "MeasurementToVizConverter", [watt]) == [samna.ui.Measurement(2, 4.0, 9)]


def test_events_are_cropped_decimated_rescaled_switched_and_counted(samna: types.ModuleType) -> None:
    kind = samna.camera.event.DvsEvent
    events = [kind(1, y, x, y * 10 + x) for y in range(4) for x in range(4)]
    cropped = passed(samna, "DvsEventCrop", events, set_roi=[1, 2, 2, 3])
    assert [(one.y, one.x, one.timestamp) for one in cropped] == [(0, 0, 21), (0, 1, 22), (1, 0, 31), (1, 1, 32)]
    assert passed(samna, "DvsEventDecimate", events, set_decimation_fraction=[5, 1]) == events[::5]
    scaled = passed(samna, samna.graph.JitEventRescale(), events, set_rescaling_coefficients=[2, 4])
    assert {(one.y, one.x) for one in scaled} == {(0, 0), (0, 1)}
    assert passed(samna, samna.graph.JitEventToggle(), events, set_enable=[False]) == []
    assert passed(samna, "Speck2fForward", events) == events
    (converted,) = passed(samna, "CameraToSpeck2fInput", events[:1])
    assert isinstance(converted, samna.speck2f.event.DvsEvent)
    graph = samna.graph.EventFilterGraph()
    source, counter = graph.sequential([Node(), samna.graph.JitEventCounterSink()])
    graph.start()
    source.receive(events)
    graph.stop()
    assert counter.get_count() == 16
    (crop, decimate, rescale) = samna.graph.EventFilterGraph().sequential(
        ["DvsEventCrop", "DvsEventDecimate", "DvsEventRescale"]
    )
    calls: tuple[Callable[[], Any], ...] = (
        lambda: crop.set_roi(3, 0, 2, 0),
        lambda: decimate.set_decimation_fraction(0),
        lambda: rescale.set_rescaling_coefficients(0, 1),
    )
    for wrong in calls:
        with pytest.raises(VirtualBoardError):
            wrong()
    rescale.reset()


def test_decimation_goes_on_from_one_batch_to_the_next(samna: types.ModuleType) -> None:
    (node,) = samna.graph.EventFilterGraph().sequential(["DvsEventDecimate"])
    node.set_decimation_fraction(3)
    kept = [one for batch in ([0, 1], [2], [3, 4, 5, 6], [7]) for one in node._apply(batch)]
    assert kept == [0, 3, 6]


def test_a_module_says_that_it_is_virtual_and_what_it_lacks(samna: types.ModuleType) -> None:
    assert "virtual" in samna.__version__
    assert "virtual" in repr(samna)
    with pytest.raises(AttributeError, match="virtual samna has no 'dynapse1'"):
        _ = samna.dynapse1
    with pytest.raises(AttributeError, match=r"virtual samna.graph has no 'JitZMQStreamer'"):
        _ = samna.graph.JitZMQStreamer
    assert isinstance(Bench(samna).events.Spike(), samna.speck2f.event.InputEvent)
    assert "virtual" in repr(samna.speck2f.event.OutputEvent)
