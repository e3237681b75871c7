"""The benchmark of the live view: shown frames, latency, exact counters, and a page that is slow to draw."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeport.deploy.artifact import save_program
from spikeport.deploy.types import Program
from spikeport.models.console import say
from spikeport.models.errors import DataError

from .browser import find_missing, open_browser
from .checks import Check
from .setting import describe_setting
from .viewed import SteadyReel
from .workloads import QUICK as QUICK_WORKLOAD
from .workloads import Scope, gesture_workload

if TYPE_CHECKING:
    from playwright.sync_api import Page

Table = tuple[str, tuple[str, ...], list[tuple[object, ...]]]

LEAST_FPS, MOST_P95_MS, MOST_SLOW_MS, MOST_GROWTH_BYTES = 25.0, 150.0, 1000.0, 16 << 20
_PACKAGES = ("spikeport", "starlette", "uvicorn", "websockets", "playwright", "numpy", "numba")
_PROC = Path("/proc")
_WARM_S = 2.0
_PATIENCE_S = 30.0
_WATCH = """
(() => {
  const seen = { due: new Map(), shown: [] };
  window.spikeportBench = seen;
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...given) {
      super(...given);
      this.addEventListener('message', ({ data }) => {
        if (!(data instanceof ArrayBuffer)) return;
        const length = new DataView(data).getUint32(0, true);
        const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
        seen.due.set(header.frame, header.span_us > 0 ? header.data_ms : null);
      });
    }
    send(text) {
      const { do: what, frame } = JSON.parse(text);
      if (what === 'shown') {
        const at = performance.timeOrigin + performance.now();
        seen.shown.push([at, seen.due.get(frame), document.timeline.currentTime]);
      }
      super.send(text);
    }
  };
})();
"""
"""Notes when a frame was drawn (the page tells the server right then), since when its newest data was there, and which
drawing of the browser it was part of."""


@dataclasses.dataclass(frozen=True)
class ViewScope:
    """How much is run: events per second, how long each part lasts, and how long the slow page takes for a frame."""

    rate_hz: int = 120_000
    shown_s: float = 60.0
    fast_hz: int = 1_000_000
    exact_s: float = 20.0
    slow_s: float = 30.0
    slow_frame_s: float = 0.4


QUICK = ViewScope(shown_s=3.0, exact_s=2.0, slow_s=4.0)


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a headless browser showed.

    Units: latency from when the newest data of a frame was there until it was drawn; processor time in cores.
    """

    rate_hz: int
    wall_s: float
    n_frames: int
    fps: float
    p50_ms: float
    p95_ms: float
    server_cores: float | None
    browser_cores: float | None


@dataclasses.dataclass(frozen=True)
class Exact:
    """Counters of the page after a pause, and the source's own count up to the same moment."""

    rate_hz: int
    t_us: int
    n_events: int
    n_source: int
    fps: float


@dataclasses.dataclass(frozen=True)
class Slow:
    """A page that needs ``frame_s`` for each frame: when it had drawn each, and how the server's memory grew."""

    frame_s: float
    n_frames: int
    p50_ms: float
    largest_ms: float
    before_bytes: int | None
    after_bytes: int | None


@dataclasses.dataclass(frozen=True)
class ViewBenchmark:
    """A run of the benchmark; ``absent`` says what could not be part of it, and why."""

    setting: dict[str, Any]
    shown: Shown | None
    exact: Exact | None
    slow: Slow
    checks: tuple[Check, ...]
    absent: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the run as plain numbers, ready for JSON."""
        return dataclasses.asdict(self)


def run_view_benchmark(scope: ViewScope, *, command: Sequence[str]) -> ViewBenchmark:
    """Return what a browser and a slow client saw of the gesture program at work; each part has a server of its own.

    Server, browser and this process share the machine: run it where nothing else does.
    """
    started = time.perf_counter()
    program = next(gesture_workload(Scope() if scope != QUICK else QUICK_WORKLOAD)).program
    missing = find_missing()
    shown = exact = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.safetensors"
        save_program(program, path)
        if missing is None:
            shown = _measure_shown(path, scope)
            say(f"view: {shown.fps:.1f} frames/s")
            exact = _measure_exact(path, program, scope)
            say(f"view: {exact.n_events:,} of {exact.n_source:,} events counted")
        slow = _measure_slow(path, scope)
        say(f"view: a slow page is at most {slow.largest_ms:.0f} ms behind")
    setting = {
        "command": shlex.join(["spikeport", "bench", *command]),
        **describe_setting(*_PACKAGES),
        "scope": dataclasses.asdict(scope),
        "wall_s": time.perf_counter() - started,
    }
    return ViewBenchmark(setting, shown, exact, slow, tuple(_checks(shown, exact, slow)), (missing,) if missing else ())


def _checks(shown: Shown | None, exact: Exact | None, slow: Slow) -> Iterator[Check]:
    if shown is not None:
        figures = f"{shown.fps:.1f} frames/s, p50 {shown.p50_ms:.0f} ms, p95 {shown.p95_ms:.0f} ms"
        aim = f"at least {LEAST_FPS:g} shown frames/s and p95 under {MOST_P95_MS:g} ms at {shown.rate_hz:,} events/s"
        yield Check(aim, shown.fps >= LEAST_FPS and shown.p95_ms < MOST_P95_MS, f"{figures} for {shown.wall_s:.0f} s")
    if exact is not None:
        figures = f"{exact.n_events:,} on the page, {exact.n_source:,} from the source, after {exact.t_us / 1e6:.3f} s"
        yield Check(
            f"counters equal the source at {exact.rate_hz:,} events/s", exact.n_events == exact.n_source > 0, figures
        )
    figures = f"at most {slow.largest_ms:.0f} ms with {slow.frame_s * 1e3:.0f} ms a frame"
    yield Check(f"a slow page stays less than {MOST_SLOW_MS:g} ms behind", slow.largest_ms < MOST_SLOW_MS, figures)
    if slow.before_bytes is not None and slow.after_bytes is not None:
        growth = slow.after_bytes - slow.before_bytes
        figures = f"{growth / 2**20:+.1f} MiB, from {slow.before_bytes / 2**20:.0f} MiB"
        aim = f"the server's memory grows by less than {MOST_GROWTH_BYTES >> 20} MiB meanwhile"
        yield Check(aim, growth < MOST_GROWTH_BYTES, figures)


@contextlib.contextmanager
def _served(path: Path, rate_hz: int, *options: str) -> Iterator[tuple[str, int]]:
    """Yield URL and process id of a server that shows the program."""
    command = [sys.executable, "-m", "spikeport.deploy.bench.viewed", str(path), str(rate_hz), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            line = server.stdout.readline() if server.stdout else ""
            yield json.loads(line)["url"], server.pid
        finally:
            server.communicate()  # closes its stdin, which ends it


@contextlib.contextmanager
def _page(url: str) -> Iterator[Page]:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(_WATCH)
        page.goto(url)
        _wait_for(page, "spikeportBench.shown.length > 3")
        yield page


def _wait_for(page: Page, condition: str) -> None:
    """Wait for a condition, asked for from outside: the page's policy forbids it to look by itself."""
    until = time.monotonic() + _PATIENCE_S
    while not page.evaluate(condition):
        if time.monotonic() > until:
            raise DataError(f"browser: the page did not come to '{condition}' within {_PATIENCE_S:g} s. Try again.")
        page.wait_for_timeout(20)


def _measure_shown(path: Path, scope: ViewScope) -> Shown:
    with _served(path, scope.rate_hz) as (url, pid), _page(url) as page:
        page.wait_for_timeout(_WARM_S * 1e3)
        page.evaluate("spikeportBench.shown.length = 0")
        started, before = time.perf_counter(), (_cpu_s([pid]), _cpu_s(_browsers()))
        page.wait_for_timeout(scope.shown_s * 1e3)
        found = page.evaluate("spikeportBench.shown")
        wall_s = time.perf_counter() - started
        spent = [
            None if a is None or b is None else (b - a) / wall_s
            for a, b in zip(before, (_cpu_s([pid]), _cpu_s(_browsers())), strict=True)
        ]
    latency_ms = [at - due for at, due, _ in found if due is not None]
    p50, p95 = np.percentile(latency_ms, (50, 95)) if latency_ms else (float("nan"), float("nan"))
    n_drawn = len({drawing for _, _, drawing in found})  # frames of one drawing are shown as one
    return Shown(scope.rate_hz, wall_s, n_drawn, n_drawn / wall_s, float(p50), float(p95), *spent)


def _measure_exact(path: Path, program: Program, scope: ViewScope) -> Exact:
    reel = SteadyReel(program.dvs.input_shape[1:], scope.fast_hz)
    with _served(path, scope.fast_hz) as (url, _), _page(url) as page:
        page.evaluate("spikeportBench.shown.length = 0")
        started = time.perf_counter()
        page.wait_for_timeout(scope.exact_s * 1e3)
        n_frames = page.evaluate("spikeportBench.shown.length")
        fps = n_frames / (time.perf_counter() - started)
        page.keyboard.press("Space")
        _wait_for(page, "document.body.dataset.playing === 'false'")
        told = page.evaluate("({ ...document.body.dataset })")
    t_us = int(told["tUs"])
    return Exact(scope.fast_hz, t_us, int(told["events"]), reel.count(t_us), fps)


def _measure_slow(path: Path, scope: ViewScope) -> Slow:
    from websockets.sync.client import connect

    with _served(path, scope.rate_hz, "no-seek") as (url, pid):
        parsed = urllib.parse.urlsplit(url)
        token = urllib.parse.parse_qs(parsed.query)["token"][0]
        behind_ms, before = [], None
        with connect(
            f"ws://{parsed.netloc}/ws",
            additional_headers={"Authorization": f"Bearer {token}"},
            max_size=None,
            compression=None,
        ) as socket:
            until = time.monotonic() + scope.slow_s
            while time.monotonic() < until:
                message = socket.recv(timeout=30)
                if isinstance(message, str):
                    continue
                header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
                time.sleep(scope.slow_frame_s)
                if header["span_us"]:
                    behind_ms.append(time.time() * 1e3 - header["data_ms"])
                socket.send(json.dumps({"do": "shown", "frame": header["frame"]}))
                if before is None and time.monotonic() > until - scope.slow_s * 2 / 3:
                    before = _resident_bytes(pid)  # behind it all buffers of the start are there
            after = _resident_bytes(pid)
    return Slow(scope.slow_frame_s, len(behind_ms), float(np.median(behind_ms)), max(behind_ms), before, after)


def _cpu_s(pids: Sequence[int]) -> float | None:
    """Return the processor time of processes so far; None where the system does not tell."""
    if not (_PROC / "self" / "stat").is_file():
        return None
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _browsers() -> list[int]:
    """Return the browser's processes: those below this one whose name is one of a browser."""
    parents: dict[int, tuple[int, str]] = {}
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            name, _, rest = (folder / "stat").read_text().partition(" (")[2].rpartition(")")
            parents[int(folder.name)] = (int(rest.split()[1]), name)
    mine = {os.getpid()}
    for _ in range(8):  # generations
        mine |= {pid for pid, (parent, _) in parents.items() if parent in mine}
    return [pid for pid in mine if pid in parents and "chrom" in parents[pid][1]]


def _resident_bytes(pid: int) -> int | None:
    status = _PROC / str(pid) / "status"
    if not status.is_file():
        return None
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(lines[0].split()[1]) * 1024 if lines else None
