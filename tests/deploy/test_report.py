"""The report: its numbers, its two forms, what it leaves out, and that the page asks nobody for anything."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeport.convert import (
    Conversion,
    Edge,
    EquivalenceGate,
    Finding,
    SpikingLayer,
    SpikingNet,
    SynopReport,
    estimate_power,
)
from spikeport.convert.graph import Graph, Input
from spikeport.convert.synops import LayerSynops
from spikeport.deploy import page
from spikeport.deploy.budget import count_words
from spikeport.deploy.chips import chip
from spikeport.deploy.emulator import Emulator
from spikeport.deploy.errors import ReportError
from spikeport.deploy.fixes import suggest
from spikeport.deploy.page import render_html, write_report
from spikeport.deploy.plan import plan
from spikeport.deploy.readout import classify, count_classes
from spikeport.deploy.report import Accuracy, Report, report_dict
from spikeport.deploy.types import CoreProgram, Destination, DvsConfig, Program, Recording, Violation
from spikeport.models.events import Events

from .diagnoses import some_cores, some_diagnosis
from .nets import stack

CLASSES = ("zero", "$one$", "<b>two</b>")


def core(number: int, name: str, shape: tuple[int, ...], in_shape: tuple[int, int, int], **changes: Any) -> CoreProgram:
    rng = np.random.default_rng(number)
    out = (shape[0], in_shape[1] - shape[2] + 1, in_shape[2] - shape[3] + 1)
    fields: dict[str, Any] = {
        "core": number,
        "name": name,
        "weight": rng.integers(-20, 60, shape).astype(np.int8),
        "bias": None,
        "threshold_high": 100,
        "threshold_low": -100,
        "reset": "subtract",
        "initial_state": np.zeros(out, np.int16),
        "in_shape": in_shape,
        "out_shape": out,
        "stride": (1, 1),
        "padding": (0, 0),
        "destinations": (Destination(None),),
        "monitor": True,
        "scale": 50.0,
    }
    return CoreProgram(**(fields | changes))


def small_program() -> Program:
    first = core(3, "conv", (4, 2, 3, 3), (2, 10, 10), destinations=(Destination(7, pool=2),))
    last = core(7, "out & done", (3, 4, 4, 4), (4, 4, 4))
    provenance = {"seed": 7, "versions": {"numpy": np.__version__}, "note": "</script><script>alert(1)</script>"}
    return Program("speck2fdevkit", (first, last), (3,), DvsConfig((2, 10, 10)), provenance)


def some_events(n: int = 3000, edge: int = 10, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, edge, (2, n))
    return Events(x, y, rng.integers(0, 2, n), np.sort(rng.integers(0, 200_000, n)), (edge, edge))


def some_synops() -> SynopReport:
    return SynopReport(
        (LayerSynops("conv", 500, 480, 9_000, 200, 256), LayerSynops("out", 200, 190, 570, 12, 3)), 5, 0.2
    )


def some_conversion() -> Conversion:
    weight = np.ones((3, 2, 10, 10), np.float32)
    layer = SpikingLayer("out", weight, None, (1, 1), (0, 0), 1.0, -1.0, (2, 10, 10), (3, 1, 1))
    graph = Graph((Input("x", "input", (), (2, 10, 10), (2, 10, 10)),), "x")
    net = SpikingNet((layer,), (Edge(-1, 0), Edge(0, None)), (2, 10, 10))
    finding = Finding("pool1", "AvgPool2d", "folded", "into the weights of 'out'")
    return Conversion(graph, graph, net, (finding,), (EquivalenceGate("fold", 8, 1e-7, 1.0),))


def full_report() -> Report:
    program, events = small_program(), some_events()
    misfit = stack((2, 32, 32), [{"features": 4, "kernel": 3, "padding": 1, "pool": 8}, {"features": 5, "kernel": 0}])
    return Report(
        title="A net & its chip",
        program=program,
        command="spikeport run net.prog <events>",
        events=events,
        recording=dataclasses.replace(Emulator(program).run(events), wall_s=0.25),
        class_names=CLASSES,
        label=1,
        accuracies=(Accuracy("CNN", 49, 50), Accuracy("emulated chip", 48, 50)),
        synops=some_synops(),
        power=estimate_power(some_synops()),
        conversion=some_conversion(),
        plan=plan(misfit),
        suggestions=suggest(misfit),
        diagnosis=some_diagnosis(),
        core_diagnosis=some_cores(),
        warnings=(Violation("conv", "odd map", "7x7", "even", "layer 'conv': an odd map. Try padding."),),
        provenance={"command line": "demo"},
    )


@pytest.fixture(scope="module")
def full_page() -> str:
    return render_html(full_report())


def the_program(report: Report) -> Program:
    assert report.program is not None
    return report.program


class Page(HTMLParser):
    """Elements, references, headings and the embedded numbers of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.scripts: list[str] = []
        self.sections: list[str] = []
        self.words: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.inside = tag
        self.references += [given[name] or "" for name in ("src", "href", "xlink:href", "action") if name in given]
        if tag == "section":
            self.sections.append(given["id"] or "")
        if tag == "script":
            assert given == {"type": "application/json", "id": "report"}

    def handle_data(self, data: str) -> None:
        if self.inside == "script" and data.strip():
            self.scripts.append(data)
        elif self.inside != "style":
            self.words.append(data)


# accuracy


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_ends_of_the_interval_lie_1_96_standard_errors_from_the_share(counts: tuple[int, int]) -> None:
    accuracy = Accuracy("CNN", *counts)
    low, high = accuracy.interval
    assert 0 <= low <= accuracy.share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            distance = abs(accuracy.share - end) / math.sqrt(end * (1 - end) / accuracy.n)
            assert distance == pytest.approx(1.96, abs=1e-3)


@pytest.mark.parametrize(("n_right", "n"), [(3, 2), (-1, 5), (0, 0)])
def test_an_accuracy_that_is_none_is_refused(n_right: int, n: int) -> None:
    with pytest.raises(ReportError, match=f"accuracy of 'CNN': expected .* found {n_right} of {n}"):
        Accuracy("CNN", n_right, n)


# numbers


def test_numbers_are_those_of_the_records() -> None:
    report = full_report()
    recording, events = report.recording, report.events
    assert recording is not None
    assert events is not None
    numbers = report_dict(report)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["input"]["n_events"] == len(events) == numbers["input"]["n_on"] + numbers["input"]["n_off"]
    assert numbers["input"]["label"] == CLASSES[1]
    for row, program in zip(numbers["activity"], the_program(report).cores, strict=True):
        counts = recording.counts[program.core]
        assert row["n_spikes"] == counts.sum() == recording.n_spikes[program.core]
        assert row["silent_share"] * counts.size == pytest.approx((counts == 0).sum())
        assert row["rate_hz"] == pytest.approx(counts.mean() / (events.duration_us / 1e6))
        assert row["synops"] == recording.synops[program.core]
    assert list(numbers["output"]["n_spikes"].values()) == count_classes(recording, the_program(report)).tolist()
    assert numbers["output"]["prediction"] == CLASSES[classify(recording, the_program(report))]
    assert numbers["synops"] == json.loads(json.dumps(some_synops().to_dict()))
    assert numbers["power"] == json.loads(json.dumps(estimate_power(some_synops()).to_dict()))
    assert numbers["provenance"]["seed"] == 7
    assert numbers["provenance"]["command line"] == "demo"


def test_all_cores_of_the_chip_are_listed_with_what_the_budget_says() -> None:
    report = full_report()
    numbers = report_dict(report)
    assert [row["core"] for row in numbers["cores"]] == [table.core for table in chip("speck2fdevkit").cores]
    loaded = {program.core: program for program in the_program(report).cores}
    for row, table in zip(numbers["cores"], chip("speck2fdevkit").cores, strict=True):
        assert row["kernel"]["available"] == table.kernel_words
        if row["core"] not in loaded:
            assert row["layer"] is None
            assert row["kernel"]["occupied"] == row["neuron"]["occupied"] == row["bias"]["occupied"] == 0
            continue
        words = count_words(loaded[row["core"]])
        assert row["kernel"]["occupied"] == words.kernel_words >= row["kernel"]["useful"] == words.useful_kernel_words
        assert row["neuron"]["occupied"] == words.neuron_words >= row["neuron"]["useful"]
    assert numbers["cores"][3]["destinations"] == ["core 7, pool 2"]
    assert numbers["cores"][7]["destinations"] == ["output"]


def test_the_page_holds_the_same_numbers_as_the_json(full_page: str) -> None:
    report, read = full_report(), Page(full_page)
    (embedded,) = read.scripts
    assert json.loads(embedded) == report_dict(report)
    words = " ".join(read.words)
    numbers = report_dict(report)
    for text in (
        f"{numbers['input']['n_events']:,} events",
        "48 of 50",
        f"{numbers['synops']['total']:,}",
        page.si(numbers["power"]["mid_w"], "W"),
        *(f"{row['n_spikes']:,}" for row in numbers["activity"]),
        *(row["source"] for row in numbers["power"]["coefficients"]),
    ):
        assert text in words


# the page


def test_the_page_asks_nobody_for_anything(full_page: str) -> None:
    read = Page(full_page)
    assert not {"link", "iframe", "object", "embed", "form", "base"} & set(read.tags)
    assert read.tags.count("script") == 1
    assert read.references
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in read.references)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", full_page))
    assert "@import" not in full_page


def test_equal_reports_give_equal_pages(full_page: str) -> None:
    assert render_html(full_report()) == full_page


def test_the_figures_of_one_page_share_no_names(full_page: str) -> None:
    names = re.findall(r'\bid="([^"]*)"', full_page)
    assert len(names) == len(set(names))


def test_text_from_outside_stays_text(full_page: str) -> None:
    assert "<b>two</b>" not in full_page
    assert "alert(1)</script>" not in full_page
    assert "<events>" not in full_page
    assert set(CLASSES) <= set(Page(full_page).words)


SECTIONS = {
    "accuracies": {"accuracy"},
    "events": {"recording"},
    "recording": {"activity", "live"},
    "synops": {"synops"},
    "power": {"power"},
    "conversion": {"conversion"},
    "plan": {"plan"},
    "diagnosis": {"diagnosis"},
    "core_diagnosis": {"cores-diagnosis"},
    "warnings": {"warnings"},
    "provenance": {"provenance"},
}


@pytest.mark.parametrize("field", [None, *SECTIONS])
def test_a_section_is_there_exactly_when_its_data_is(field: str | None) -> None:
    full = full_report()
    bare = Report(title="bare", program=dataclasses.replace(the_program(full), provenance={}))
    report = dataclasses.replace(bare, **{field: getattr(full, field)}) if field else bare
    text = render_html(report)
    assert set(Page(text).sections) == {"cores"} | (SECTIONS[field] if field else set())
    assert "None" not in text


def test_every_part_at_once_has_every_section_once(full_page: str) -> None:
    sections = Page(full_page).sections
    assert sorted(sections) == sorted({"cores"}.union(*SECTIONS.values()))


def nine_full_cores() -> tuple[Program, Recording]:
    shapes = [(16, 64, 64)] * 3 + [(32, 32, 32), (64, 16, 16), (64, 16, 16), (256, 8, 8), (1024, 1, 1), (1000, 1, 1)]
    cores = []
    for number, shape in enumerate(shapes):
        target = Destination(None) if number == 8 else Destination(number + 1)
        in_shape = (shape[0], *shape[1:])
        weight = (shape[0], shape[0], 1, 1)
        cores.append(core(number, f"a layer with a long name {number}", weight, in_shape, destinations=(target,)))
    rng = np.random.default_rng(0)
    counts = {number: rng.integers(0, 1000, shape) for number, shape in enumerate(shapes)}
    totals = {number: int(count.sum()) for number, count in counts.items()}
    spikes = np.zeros(100_000, [("event", "i8"), ("t_us", "i8"), ("feature", "i2"), ("y", "i2"), ("x", "i2")])
    spikes["t_us"], spikes["feature"] = rng.integers(0, 200_000, 100_000), rng.integers(0, 1000, 100_000)
    states = {number: np.zeros(shape, np.int16) for number, shape in enumerate(shapes)}
    program = Program("speck2fdevkit", tuple(cores), (0,), DvsConfig((2, 128, 128)))
    return program, Recording({8: spikes}, states, totals, totals, totals, totals, counts, wall_s=1.0)


def test_the_noisiest_page_of_nine_full_cores_stays_under_500_kb() -> None:
    program, recording = nine_full_cores()
    events = some_events(200_000, edge=128)
    report = dataclasses.replace(full_report(), class_names=(), program=program, recording=recording, events=events)
    assert len(render_html(report).encode()) <= 500_000


@pytest.mark.parametrize("n_events", [1, 2])
def test_a_nearly_empty_recording_has_a_page(n_events: int) -> None:
    program, few = small_program(), some_events(n_events)
    recording = Emulator(program).run(few)
    assert not recording.spikes[7].size
    assert "recording" in Page(render_html(Report("few", program, events=few, recording=recording))).sections


def test_events_at_one_instant_have_a_page_without_time_courses() -> None:
    one_two = np.array([1, 2])
    instant = Events(one_two, one_two, one_two - 1, np.array([50, 50]), (10, 10))
    text = render_html(Report("instant", small_program(), events=instant))
    assert "2 events in 0.0 ms" in " ".join(" ".join(Page(text).words).split())
    assert "<svg" not in text.replace('<svg class="chip"', "")


def test_a_program_whose_spikes_stay_inside_has_no_output() -> None:
    program = small_program()
    quiet = tuple(dataclasses.replace(core, destinations=core.destinations[: 7 - core.core]) for core in program.cores)
    program = dataclasses.replace(program, cores=quiet)
    report = Report("inside", program, events=some_events(), recording=Emulator(program).run(some_events()))
    assert "output" not in report_dict(report)
    assert "Read out as" not in render_html(report)


# files


def test_a_report_is_written_whole_as_page_or_as_json(full_page: str, tmp_path: Path) -> None:
    report = full_report()
    html = write_report(report, tmp_path / "report.html")
    numbers = write_report(report, str(tmp_path / "report.json"))
    assert html.read_text(encoding="utf-8") == full_page
    assert json.loads(numbers.read_text(encoding="utf-8")) == report_dict(report)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_a_report_for_a_missing_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        write_report(full_report(), tmp_path / "nowhere" / "report.html")
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_belong_together_are_refused_all_at_once() -> None:
    report = full_report()
    recording = report.recording
    assert recording is not None
    other = dataclasses.replace(recording, counts={3: recording.counts[3]})
    with pytest.raises(ReportError) as refused:
        dataclasses.replace(report, recording=other, class_names=("a", "b"), label=3)
    message = str(refused.value)
    assert "the program's cores [3, 7], found [3]" in message
    assert "expected 3 class names" in message
    assert "expected a label in 0..2, found 3" in message


def test_a_recording_without_output_spikes_is_read_out_as_none() -> None:
    program = small_program()
    deaf = dataclasses.replace(
        program, cores=tuple(dataclasses.replace(core, threshold_high=32767) for core in program.cores)
    )
    few = some_events(5)
    report = Report("silent", deaf, events=few, recording=Emulator(deaf).run(few))
    assert report_dict(report)["output"]["prediction"] is None
    assert "<b>none</b>" in render_html(report)
