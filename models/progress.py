"""How far an evaluation is: a bar with rates on stderr, and only on a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any


class Progress:
    """Counts samples, steps and events, and shows them where it has a bar."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task
        self._started = time.perf_counter()
        self._n_steps = self._n_events = 0

    def phase(self, text: str) -> None:
        """Say what happens now: loading, compiling, the metrics so far."""
        if self._bar is not None:
            self._bar.update(self._task, phase=text)

    def advance(self, n_samples: int, *, n_steps: int, n_events: int) -> None:
        """Count what was just done."""
        self._n_steps += n_steps
        self._n_events += n_events
        if self._bar is None:
            return
        seconds = max(time.perf_counter() - self._started, 1e-9)
        rate = f"{self._n_steps / seconds:,.0f} steps/s"
        if self._n_events:
            rate += f", {self._n_events / seconds:,.0f} events/s"
        self._bar.update(self._task, advance=n_samples, rate=rate)


@contextlib.contextmanager
def progress(title: str, n_samples: int | None, *, is_shown: bool | None = None) -> Iterator[Progress]:
    """Yield a ``Progress``; without a terminal at stderr, or with ``is_shown`` False, it shows nothing."""
    wanted = sys.stderr is not None and sys.stderr.isatty() if is_shown is None else is_shown
    if not wanted:
        yield Progress(None, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    text, rate = TextColumn("{task.fields[phase]}"), TextColumn("{task.fields[rate]}")
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), rate, text)
    with Bar(*columns, console=Console(stderr=True)) as bar:
        yield Progress(bar, bar.add_task("", total=n_samples, phase="starting", rate=""))
