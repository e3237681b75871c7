"""The picture of a chip, in a terminal and as SVG: everything is in it once, and no line crosses a box."""

from __future__ import annotations

import io
import itertools
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from spikeport.deploy.page import render_html
from spikeport.deploy.picture import Picture, draw_text, outline, percent
from spikeport.deploy.pipeline import compile_program
from spikeport.deploy.plan import Plan, plan
from spikeport.deploy.report import Report
from spikeport.deploy.wiring import draw_svg

from .misfits import MISFITS
from .nets import branch_net, gesture_net, random_graph, single, stack

SVG = "{http://www.w3.org/2000/svg}"
ORDER = (0, 1, 7, 2, 4, 5, 6, 3, 8)  # core 7 is too small for the third layer of the gesture net
PLANS = [
    plan(gesture_net()),
    plan(branch_net()),
    plan(gesture_net(), layer_order=ORDER),
    *(plan(random_graph(np.random.default_rng(seed), n_layers=9)) for seed in range(4)),
    *(plan(misfit.build()) for misfit in MISFITS if misfit.crowd),
]
each_plan = pytest.mark.parametrize("planned", PLANS)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own text


def printed(picture: Picture, *, is_ascii: bool = False, color: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=color, no_color=not color)
    console.print(draw_text(picture, is_ascii=is_ascii))
    return stream.getvalue()


@each_plan
def test_boxes_stand_in_network_order_on_cores_with_room_and_each_edge_is_a_route(planned: Plan) -> None:
    picture = outline(planned)
    assert sorted(box.core.core for box in picture.boxes) == list(range(9))
    names = [box.layer for box in picture.boxes if box.layer]
    assert names == [layer.name for layer in planned.net.layers if layer.name in names]
    if planned.placement.cores is not None:
        assert tuple(box.core.core for box in picture.boxes if box.layer) == planned.placement.cores
        assert len(picture.routes) == len(planned.net.edges)
        return
    candidates = {use.layer: use.candidates for use in planned.cores}
    assert all(box.core.core in candidates[box.layer] for box in picture.boxes if box.layer)
    assert len(picture.routes) < len(planned.net.edges)


@pytest.mark.parametrize("seed", range(4))
def test_plan_and_program_say_the_same(seed: int) -> None:
    net = random_graph(np.random.default_rng(seed), n_layers=6)
    of_plan, of_program = outline(plan(net)), outline(compile_program(net))
    assert of_plan.routes == of_program.routes
    assert printed(of_plan) == printed(of_program)
    assert draw_svg(of_plan) == draw_svg(of_program)


@each_plan
def test_what_has_no_core_is_as_little_as_can_be_and_the_rest_fits(planned: Plan) -> None:
    picture = outline(planned)
    assert len(picture.unplaced) == len(planned.placement.conflicts)
    names = [box.layer for box in picture.boxes if box.layer]
    assert sorted([*names, *picture.unplaced]) == sorted(layer.name for layer in planned.net.layers)
    overfull = [box.layer for box in picture.boxes if box.is_overfull]
    assert overfull == [planned.net.layers[layer].name for layer in planned.placement.misfits]


@each_plan
@pytest.mark.parametrize("is_ascii", [False, True])
def test_in_a_terminal_every_core_is_there_once_within_80_columns(planned: Plan, is_ascii: bool) -> None:
    picture = outline(planned)
    text = printed(picture, is_ascii=is_ascii)
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"core (\d)(?: \(| [─-])", text) == [str(box.core.core) for box in picture.boxes]
    assert text.count("unused") == sum(box.layer is None for box in picture.boxes)
    assert text.count("(input") == sum(map(picture.is_entry, picture.boxes)) > 0
    assert text.count("output)") == sum(map(picture.is_output, picture.boxes))
    assert text.count(" to ") == sum(route.source is not None for route in picture.routes)
    assert all(name in text for name in picture.unplaced)
    assert text.isascii() == is_ascii


def test_in_a_terminal_color_adds_nothing_that_is_not_there_without() -> None:
    picture = outline(plan(gesture_net(), layer_order=ORDER))
    bare, colored = printed(picture), printed(picture, color=True)
    assert "\x1b" not in bare
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == bare
    assert "core 7 (too small)" in bare
    assert "neuron ██████████ 200%" in bare


def test_bars_and_percents_are_the_shares_of_the_words() -> None:
    (box, *_) = outline(plan(single((2, 128, 128), 12, 3, stride=2, padding=1, bias=True))).boxes
    assert [box.share(memory) for memory in ("kernel", "neuron", "bias")] == [512 / 16384, 0.75, 12 / 1024]
    text = printed(outline(plan(single((2, 128, 128), 12, 3, stride=2, padding=1, bias=True))))
    assert "kernel █░░░░░░░░░   3%" in text
    assert "neuron ███████░░░  75%" in text
    assert [percent(share) for share in (0, 0.001, 0.01, 0.999, 1, 2, 99)] == [
        "0%", "<1%", "1%", "99%", "100%", "200%", "999%",
    ]  # fmt: skip


def test_long_names_are_cut_and_names_are_no_markup() -> None:
    name = "[bold]a layer & <its> very long name"
    picture = outline(plan(stack((2, 8, 8), [{"features": 2, "name": name}])))
    assert "[bold]a layer & <it..." in printed(picture)
    root = parsed(draw_svg(picture))
    assert any((text.text or "").startswith("[bold]a layer & <its") for text in root.iter(f"{SVG}text"))


# SVG


@each_plan
def test_the_drawing_has_each_core_and_each_route_once(planned: Plan) -> None:
    picture = outline(planned)
    text = draw_svg(picture)
    root = parsed(text)
    assert [group.get("data-core") for group in root.iter(f"{SVG}g")] == [str(box.core.core) for box in picture.boxes]
    wires = [f"{r.source}-{r.target}" for r in picture.routes if r.source is not None and r.target is not None]
    assert [path.get("data-route") for path in root.iter(f"{SVG}path")] == wires
    words = " ".join(text.text or "" for text in root.iter(f"{SVG}text"))
    assert words.count("from the input") == sum(map(picture.is_entry, picture.boxes))
    assert words.count("to the output") == sum(map(picture.is_output, picture.boxes))
    assert all(name in words for name in picture.unplaced)
    assert draw_svg(outline(planned)) == text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in text


@each_plan
def test_lines_keep_to_the_gaps_between_the_boxes_and_inside_the_drawing(planned: Plan) -> None:
    root = parsed(draw_svg(outline(planned)))
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    boxes = []
    for group in root.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        assert rect is not None
        boxes.append([float(rect.get(key) or 0) for key in ("x", "y", "width", "height")])
    for path in root.iter(f"{SVG}path"):
        points = [tuple(map(float, part.split())) for part in (path.get("d") or "")[1:].split("L")]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            assert x0 == x1 or y0 == y1
            for left, top, wide, tall in boxes:
                across = max(x0, x1) > left and min(x0, x1) < left + wide
                down = max(y0, y1) > top and min(y0, y1) < top + tall
                assert not (across and down)


@each_plan
def test_no_two_lines_lie_on_each_other(planned: Plan) -> None:
    root = parsed(draw_svg(outline(planned)))
    spans: list[tuple[bool, float, float, float, int]] = []
    for number, path in enumerate(root.iter(f"{SVG}path")):
        points = [tuple(map(float, part.split())) for part in (path.get("d") or "")[1:].split("L")]
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            (at, low, high) = (x0, y0, y1) if x0 == x1 else (y0, x0, x1)
            spans.append((x0 == x1, at, min(low, high), max(low, high), number))
    for (way, at, low, high, one), (other_way, other_at, other_low, other_high, two) in itertools.combinations(
        spans, 2
    ):
        if one != two and way == other_way and abs(at - other_at) < 1:
            assert max(low, other_low) >= min(high, other_high)


def test_a_report_of_plan_and_program_has_one_picture() -> None:
    net = branch_net()
    planned = plan(net)
    page = render_html(Report("both", compile_program(net), plan=planned))
    assert page.count('<svg class="chip"') == 1
    assert '<section id="plan">' in page
    assert draw_svg(outline(planned)) in page
    assert "<svg" not in render_html(Report("neither", command="spikeport convert net.py"))
