"""The page's files: no inline code, no address of elsewhere, every import and element there; laws of its functions."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeport.deploy.view import assets
from spikeport.deploy.view.backlog import Backlog
from spikeport.deploy.view.protocol import encode
from spikeport.deploy.view.types import Totals

from .clients import N_CLASSES, START, decoded, stretch, window

PAGE = Path(assets.__file__).with_name("page")
MODULES = sorted(PAGE.glob("*.js"))
IMPORT = re.compile(r"import \{([^}]+)\} from '\./(\w+\.js)';")
NODE = shutil.which("node")

# What modules of the page ask a browser for while they are loaded.
BROWSER = """
globalThis.matchMedia = () => ({ matches: true, addEventListener() {} });
globalThis.ResizeObserver = class { observe() {} };
globalThis.localStorage = { getItem: () => null };
"""


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.inline += data.strip()


def index() -> Tags:
    return Tags((PAGE / "index.html").read_text())


def run_node(source: str, value: Any) -> Any:
    """Return what a module prints as JSON; it has ``value`` as ``given``, and the page's modules by ``page(name)``."""
    if NODE is None:
        pytest.skip("laws of the page's functions need node outside of a browser")
    head = f"{BROWSER}const page = (name) => import({json.dumps(PAGE.as_uri())} + '/' + name);\n"
    script = f"{head}const given = JSON.parse(await new Response(process.stdin).text());\n{source}"
    command = [NODE, "--no-warnings", "--input-type=module", "--eval", script]
    done = subprocess.run(command, input=json.dumps(value), capture_output=True, text=True, timeout=30, check=False)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_the_page_has_neither_inline_code_nor_addresses_of_elsewhere() -> None:
    page = index()
    assert page.inline == ""
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            place = attributes.get(name) or ""
            assert re.match(r"(data:|#|page/|export/|$)", place), place
            assert not place.startswith("page/") or (PAGE / place.removeprefix("page/")).is_file()
    for path in [*MODULES, *PAGE.glob("*.css")]:
        text = path.read_text()
        assert not re.search(
            r"https?://|innerHTML|insertAdjacentHTML|\beval\(|new Function|cssText|@import|url\(", text
        )


def test_every_import_is_there_and_used() -> None:
    exported = {
        path.name: set(re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", path.read_text(), re.M))
        for path in MODULES
    }
    for path in MODULES:
        text = path.read_text()
        for names, module in IMPORT.findall(text):
            for name in (one.strip() for one in names.split(",")):
                assert name in exported[module], (path.name, module, name)
                assert len(re.findall(rf"\b{name}\b", text)) > 1, (path.name, name)
    reached = {"app.js"}
    for _ in MODULES:
        reached |= {module for name in reached for _, module in IMPORT.findall((PAGE / name).read_text())}
    assert reached == set(exported)


def test_drops_are_an_alarm_only_where_the_device_complains_and_late_spikes_always() -> None:
    totals = [{"late": late, "dropped": dropped} for late in (0, 2) for dropped in (0, 3)]
    frames = [{"totals": one, "position": {"problem": why}} for one in totals for why in (None, "The buffer is full.")]
    source = """
      const { alarmsOf } = await page('status.js');
      console.log(JSON.stringify(given.map(alarmsOf)));
    """
    for frame, alarms in zip(frames, run_node(source, frames), strict=True):
        is_lost = frame["totals"]["dropped"] > 0 and frame["position"]["problem"] is not None  # type: ignore[index]
        assert alarms == {"late": frame["totals"]["late"] > 0, "dropped": is_lost}  # type: ignore[index]


def test_every_element_that_the_modules_ask_for_is_there_once() -> None:
    ids = [attributes["id"] for _, attributes in index().tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    asked = {one for path in MODULES for one in re.findall(r"\bget\('([\w-]+)'\)", path.read_text())}
    assert asked
    assert asked <= set(ids)
    for tag, attributes in index().tags:
        for name in ("for", "aria-labelledby", "popovertarget"):
            assert attributes.get(name) is None or attributes[name] in ids, (tag, name)


def test_the_page_reads_frames_as_the_server_writes_them() -> None:
    cases = []
    for n_events, sensor in ((3, (12, 16)), (900, (12, 16)), (7, (300, 400)), (0, (5, 7))):
        backlog = Backlog()
        backlog.on_stretch(stretch(0, 1000, n_events=n_events, sensor=sensor))
        backlog.on_window(window(0))
        cases.append(encode(backlog.take(START, Totals(n_events=n_events), np.arange(N_CLASSES)), 9))
    source = """
    const { decodeFrame } = await page('wire.js');
    const out = given.map((bytes) => {
      const frame = decodeFrame(Uint8Array.from(bytes).buffer);
      return { ...frame, sections: frame.sections.map((one) => ({ ...one, data: [...one.data] })) };
    });
    console.log(JSON.stringify(out));
    """
    for found, message in zip(run_node(source, [list(one) for one in cases]), cases, strict=True):
        header, arrays = decoded(message)
        sections = found.pop("sections")
        assert found == {name: value for name, value in header.items() if name != "sections"}
        assert [one["name"] for one in sections] == [one["name"] for one in header["sections"]]
        for one in sections:
            np.testing.assert_array_equal(np.reshape(one["data"], one["shape"]), arrays[one["name"]])


def test_moving_panels_loses_none_and_can_be_undone() -> None:
    source = """
    const { PANELS, find, hide, move, place, shift, show, tidy, narrowed } = await page('layout.js');
    const names = Object.keys(PANELS);
    const opposite = { left: 'right', right: 'left' };
    const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    const faults = [];
    const law = (holds, ...what) => holds || faults.push(JSON.stringify(what));
    const sorted = (rows) => rows.flat().sort();
    for (const numbers of given) {
      let rows = [names.slice(0, 3), names.slice(3)];
      for (const [act, i, j] of numbers) {
        const [name, target] = [names[i], names[j]];
        const before = rows;
        const frozen = JSON.stringify(before);
        if (act < 4) {
          const way = ['left', 'right', 'up', 'down'][act];
          rows = move(before, name, way);
          if (way in opposite && !same(rows, before)) law(same(move(rows, name, opposite[way]), before), way, before);
        } else if (act === 4) {
          rows = place(before, name, { target, isAfter: i > j });
          const at = rows.flat();
          if (name !== target && find(before, target) && find(before, name)) {
            law(at.indexOf(name) - at.indexOf(target) === (i > j ? 1 : -1), 'place', before, name, target);
          }
        } else if (act === 5) {
          rows = shift(before, name, i > j ? 1 : -1);
          law(same(shift(rows, name, i > j ? -1 : 1), before) || same(rows, before), 'shift', before);
        } else if (act === 6) {
          rows = show(hide(before, name), name);
          law(find(rows, name) && !find(hide(before, name), name), 'hide', before);
        }
        law(JSON.stringify(before) === frozen, 'changed', before);
        law(same(sorted(rows), [...names].sort()), 'lost', act, before, rows);
        law(same(rows, tidy(rows)), 'untidy', rows);
        law(same(sorted(narrowed(rows)), sorted(rows)), 'narrowed', rows);
      }
    }
    law(same(tidy([['map', 'nonsense', 'map'], ['map'], []]), [['map']]), 'tidy');
    console.log(JSON.stringify(faults));
    """
    rng = np.random.default_rng(9)
    plays = [[[int(rng.integers(n)) for n in (7, 6, 6)] for _ in range(30)] for _ in range(40)]
    assert run_node(source, plays) == []


def test_fading_rates_and_searching_follow_their_laws() -> None:
    source = """
    const { fading, boxOf } = await page('image.js');
    const { Rate, Recent, quantile, si } = await page('numbers.js');
    const { Ring, niceStep, spread } = await page('plots.js');
    const out = { fading: [], si: [], spread: [], ring: [], steps: [] };
    for (const [a, b, fade] of given.spans) out.fading.push([a, b, a + b].map((span) => fading(span, fade)));
    out.none = fading(1000, 0);
    out.si = given.numbers.map((x) => si(x, 'W'));
    out.untold = [si(null), si(NaN), si(0, 'W')];
    const rate = new Rate();
    for (const span of given.numbers) rate.push(span * 3, span * 1e6);
    out.rate = rate.perSecond;
    const recent = new Recent(16);
    given.numbers.forEach((x) => recent.push(x));
    out.recent = [...recent.values()];
    out.quantile = quantile(given.numbers, 0.5);
    const ring = new Ring(1, 50);
    given.times.forEach((t) => ring.push(t, [t * 2]));
    const held = Array.from({ length: ring.length }, (_, i) => ring.t[ring.at(i)]);
    out.held = held;
    out.found = given.times.map((t) => [ring.search(t), held.filter((one) => one < t).length]);
    out.spread = spread(given.heights, 13, 0, 400);
    out.steps = given.numbers.map((x) => [x, niceStep(x, 6)]);
    out.box = boxOf({ x: 5, y: 2 }, { x: 1, y: 3 }, { width: 6, height: 9 });
    console.log(JSON.stringify(out));
    """
    rng = np.random.default_rng(4)
    numbers = [float(x) for x in 10 ** rng.uniform(-9, 9, 60)]
    times = [int(x) for x in np.cumsum(rng.integers(1, 50, 120))]
    spans = [[float(x) for x in rng.uniform(1, 2e5, 3)] for _ in range(50)]
    heights = [float(x) for x in rng.uniform(0, 400, 20)]
    found = run_node(source, {"numbers": numbers, "times": times, "spans": spans, "heights": heights})
    for (a, b, _), (one, two, both) in zip(spans, found["fading"], strict=True):
        assert both["keep"] == pytest.approx(one["keep"] * two["keep"])
        whole = (one["gain"] * a * two["keep"] + two["gain"] * b) / (a + b)
        assert both["gain"] == pytest.approx(whole, rel=1e-3)
    assert found["none"] == {"keep": 0, "gain": 1}
    powers = dict(zip("pnµm kMGT", (1e-12, 1e-9, 1e-6, 1e-3, 1, 1e3, 1e6, 1e9, 1e12), strict=True))
    for number, text in zip(numbers, found["si"], strict=True):
        figure, unit = text.split(" ")
        assert float(figure) * powers[unit.removesuffix("W") or " "] == pytest.approx(number, rel=6e-3)
        assert 0.99 < float(figure) < 1000
    assert found["untold"] == ["not told", "not told", "0 W"]
    assert found["rate"] == pytest.approx(3)
    assert found["recent"] == numbers[-16:]
    assert found["quantile"] == sorted(numbers)[30]
    assert found["held"] == times[-50:]
    assert all(one == other for one, other in found["found"])
    apart = np.diff(np.array(found["spread"])[np.argsort(heights)])
    assert apart.min() >= 13 - 1e-9
    assert all(span / 6 <= step * 1.001 and step <= span for span, step in found["steps"])
    assert found["box"] == [2, 4, 1, 6]
