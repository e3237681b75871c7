"""The cores of one recording in different threads, each at another part of it, as the cores of the chip work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .core import RunningCore, join, merge, route
from .layout import Int64s

_PARTS, _FEWEST, _MOST = 4, 1 << 12, 1 << 15
"""Parts that a recording is cut into, and the input events that a part has at least and at most: each time that a core
takes a part up costs about as much as 50 events of a gesture net (measured 2026-11-22)."""

_AHEAD = 32
"""Parts that the first core may be ahead of the last one, which bounds what lies between them."""

Task = tuple[int, int]
"""A core's place in the network and the number of a part."""


def part_size(n_events: int) -> int:
    """Return how many input events a core hands on at once."""
    return min(max(-(-n_events // _PARTS), _FEWEST), _MOST)


def run_stages(
    cores: Sequence[RunningCore],
    parts: Sequence[Callable[[], tuple[dict[int, Int64s], Int64s]]],
    finish: Callable[[RunningCore, int, Int64s], None],
    *,
    workers: int,
) -> None:
    """Run all parts of a recording through all cores in ``workers`` threads.

    Each of ``parts`` gives the words that enter each entry core and the leak ticks of its events. ``finish`` is called
    with each core, number of a part, and the spikes; for one core in order, for several at any time.
    Law: equal to one part after the other through one core after the other.
    """
    schedule = _Schedule(cores, parts, finish)
    with ThreadPoolExecutor(workers) as pool:
        for worker in [pool.submit(schedule.work) for _ in range(workers)]:
            worker.result()


class _Schedule:
    """Which core may work on which part: its own next one, once all that it hears from have finished it."""

    def __init__(
        self,
        cores: Sequence[RunningCore],
        parts: Sequence[Callable[[], tuple[dict[int, Int64s], Int64s]]],
        finish: Callable[[RunningCore, int, Int64s], None],
    ) -> None:
        self._cores, self._parts, self._finish = cores, parts, finish
        place = {core.program.core: index for index, core in enumerate(cores)}
        self._targets = [
            sorted({place[to.core] for to in core.program.destinations if to.core is not None}) for core in cores
        ]
        self._sources = [[s for s, targets in enumerate(self._targets) if i in targets] for i in range(len(cores))]
        self._place = place
        self._n_done = [0] * len(cores)
        self._is_busy = [False] * len(cores)
        self._given: dict[int, tuple[dict[int, Int64s], Int64s]] = {}
        self._waiting: dict[Task, dict[int, Int64s]] = {}
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def work(self) -> None:
        """Work on whatever can be worked on until all is done, or another worker failed."""
        while (task := self._take()) is not None:
            try:
                self._carry_out(task)
            except BaseException as failure:
                with self._changed:
                    self._failure = failure
                    self._changed.notify_all()
                raise

    def _take(self) -> Task | None:
        with self._changed:
            while self._failure is None and min(self._n_done) < len(self._parts):
                # The last cores first: what they take leaves the memory.
                for index in reversed(range(len(self._cores))):
                    if self._is_ready(index):
                        self._is_busy[index] = True
                        return index, self._n_done[index]
                self._changed.wait()
            return None

    def _is_ready(self, index: int) -> bool:
        part = self._n_done[index]
        return (
            not self._is_busy[index]
            and part < min(len(self._parts), min(self._n_done) + _AHEAD)
            and all(self._n_done[source] > part for source in self._sources[index])
        )

    def _carry_out(self, task: Task) -> None:
        index, part = task
        core = self._cores[index]
        with self._changed:
            heard = self._waiting.pop(task, {})
            if part not in self._given:
                self._given[part] = self._parts[part]()
            entering, ticks_due = self._given[part]
        streams = [entering[core.program.core]] if core.program.core in entering else []
        arriving = merge([*streams, *(heard[source] for source in sorted(heard))])
        spikes = join(core.integrate(arriving, ticks_due)).copy()
        sent = {self._place[target]: stream for target, stream in route(core.program, spikes)}
        self._finish(core, part, spikes)
        with self._changed:
            for target, stream in sent.items():
                self._waiting.setdefault((target, part), {})[index] = stream
            self._n_done[index] += 1
            self._is_busy[index] = False
            if min(self._n_done) > part:
                self._given.pop(part, None)
            self._changed.notify_all()
