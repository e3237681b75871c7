"""Event graphs of a virtual driver: nodes joined into chains, and a thread per graph that moves events along them.

Laws: no wait is without an end: a blocking read returns what is there after its time-out, ``WAIT_MS`` where it has
none. A graph that is stopped passes on what was written before, then its thread ends; what is written to a stopped
graph waits for its start. What a device sends while no graph listens is not kept.
"""

from __future__ import annotations

import atexit
import itertools
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from .errors import VirtualBoardError

WAIT_MS = 10_000
"""Longest wait of a blocking read that names no time-out, in milliseconds; the real driver waits for ever."""

SINK_EVENTS = 4_194_304
"""Events that a sink holds before it drops, and counts, what comes; the real one grows without a limit."""

_POLL_S = 0.05
_DRAIN_S = 1.0

Kinds = tuple[type, ...] | None
"""Classes of events that a node takes or gives; None: any."""


class Node:
    """A node: it takes events, and gives what ``_apply`` makes of them to the nodes behind it."""

    takes: Kinds = None
    gives: Kinds = None
    is_periodic: ClassVar[bool] = False

    def __init__(self) -> None:
        self._edges: list[tuple[EventFilterGraph, Node]] = []
        self._inbox: deque[Sequence[Any]] = deque()
        self._home: EventFilterGraph | None = None
        self.graph: EventFilterGraph | None = None

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        """Return what the node gives for what it took."""
        return events

    def receive(self, events: Sequence[Any]) -> None:
        """Take events, to be processed by the node's graph."""
        self._inbox.append(events)
        if self._home is not None:
            self._home.bell.ring()

    def forward(self, events: Sequence[Any]) -> None:
        """Give events to the nodes behind, in all graphs that run."""
        if not events:
            return
        for graph, target in tuple(self._edges):
            if graph.is_running:
                target.receive(events)

    def run(self) -> bool:
        """Process what waits, and return whether that was anything."""
        waiting: list[Any] = []
        while self._inbox:
            waiting += self._inbox.popleft()
        if waiting or self.is_periodic:
            self.forward(self._apply(waiting))
        return bool(waiting)

    def check(self) -> None:
        """Raise VirtualBoardError where a board behind this node is gone."""
        for _, target in tuple(self._edges):
            target.check()

    def __repr__(self) -> str:
        return f"<virtual {type(self).__name__}>"


class SourceNode(Node):
    """A node that the user writes to; ``takes`` are the classes of events that it accepts."""

    def write(self, events: Iterable[Any]) -> None:
        """Send events into the graph.

        Raises: TypeError for what is no list of the node's events; VirtualBoardError where a board behind it is gone.
        """
        if isinstance(events, (str, bytes)) or not isinstance(events, Iterable):
            raise TypeError(f"virtual samna: write: expected a list of events, found {type(events).__name__}.")
        batch = list(events)
        if self.takes is not None:
            for event in batch:
                if not isinstance(event, self.takes):
                    names = ", ".join(sorted(kind.__name__ for kind in self.takes))
                    raise TypeError(
                        f"virtual samna: {type(self).__name__}.write: expected events of {names}, found "
                        f"{type(event).__name__}. Try an event of the same chip."
                    )
        self.check()
        if batch:
            self.receive(batch)


class SinkNode(Node):
    """A node that keeps events until they are read; ``n_dropped`` came while it was full."""

    def __init__(self, capacity: int = SINK_EVENTS) -> None:
        super().__init__()
        self.n_dropped = 0
        self._capacity = capacity
        self._kept: list[Any] = []
        self._came = threading.Condition()

    def _apply(self, events: Sequence[Any]) -> Sequence[Any]:
        with self._came:
            room = self._capacity - len(self._kept)
            self._kept += events[: max(room, 0)]
            dropped = len(events) - max(room, 0)
            if dropped > 0:
                if not self.n_dropped:
                    warnings.warn(
                        f"virtual samna: a sink holds {self._capacity} events and drops what comes; n_dropped counts "
                        "it. Try reading it more often.",
                        RuntimeWarning,
                        stacklevel=2,
                    )
                self.n_dropped += dropped
            self._came.notify_all()
        return ()

    def get_events(self) -> list[Any]:
        """Return what came since the last read."""
        with self._came:
            events, self._kept = self._kept, []
        return events

    def get_n_events(self, n: int, timeout: int | None = None) -> list[Any]:
        """Return the next ``n`` events, fewer where they did not come within ``timeout`` milliseconds."""
        with self._came:
            self._came.wait_for(lambda: len(self._kept) >= n, _seconds(timeout))
            events, self._kept = self._kept[:n], self._kept[n:]
        return events

    def get_events_blocking(self, timeout: int | None = None) -> list[Any]:
        """Return what came, as soon as anything did, or nothing after ``timeout`` milliseconds."""
        with self._came:
            self._came.wait_for(lambda: bool(self._kept), _seconds(timeout))
        return self.get_events()

    def clear_events(self) -> None:
        """Forget what came."""
        self.get_events()

    def is_empty(self) -> bool:
        """Return whether nothing is there to read."""
        return not self._kept


def _seconds(timeout_ms: int | None) -> float:
    return (WAIT_MS if timeout_ms is None or timeout_ms < 0 else timeout_ms) / 1e3


class Jit:
    """A builder of a node whose kind depends on what stands before it in the chain."""

    is_source: ClassVar[bool] = False

    def build(self, before: Node | None) -> Node:
        """Return the node, behind ``before``."""
        raise NotImplementedError


_running: weakref.WeakSet[EventFilterGraph] = weakref.WeakSet()


class Bell:
    """Wakes the thread of a graph."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._has_rung = False

    def ring(self) -> None:
        """Let the thread look for events at once."""
        with self._condition:
            self._has_rung = True
            self._condition.notify_all()

    def wait(self) -> None:
        """Wait until it rings, at most a moment."""
        with self._condition:
            self._condition.wait_for(lambda: self._has_rung, _POLL_S)
            self._has_rung = False


class EventFilterGraph:
    """Nodes joined into chains, which run in a thread of their own from ``start`` to ``stop``.

    ``named`` makes the nodes that a chain asks for by name.
    """

    named: ClassVar[dict[str, Callable[[], Node]]] = {}

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self.bell = Bell()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    @property
    def is_running(self) -> bool:
        """Whether its thread is at work."""
        return self._thread is not None and self._fault is None

    @property
    def is_stopping(self) -> bool:
        """Whether it is about to end."""
        return self._is_stopping

    def sequential(self, items: Sequence[Any]) -> list[Node]:
        """Join nodes, names of nodes and builders into a chain, and return its nodes.

        Raises: VirtualBoardError for an unknown name, a builder in front that is no source, or neighbors of which one
        gives what the other does not take; TypeError for anything else.
        """
        if isinstance(items, (str, bytes)) or not isinstance(items, Sequence):
            raise TypeError(f"virtual samna: sequential: expected a list of nodes, found {type(items).__name__}.")
        nodes: list[Node] = []
        for item in items:
            nodes.append(self._node(item, nodes[-1] if nodes else None))
        for before, after in itertools.pairwise(nodes):
            _check_fit(before, after)
        for node in nodes:
            if node not in self._nodes:
                self._nodes.append(node)
            if node._home is None:
                node._home = self
        for before, after in itertools.pairwise(nodes):
            if (self, after) not in before._edges:
                before._edges.append((self, after))
        return nodes

    def _node(self, item: Any, before: Node | None) -> Node:
        if isinstance(item, Node):
            return item
        if isinstance(item, str):
            if item not in self.named:
                known = ", ".join(sorted(self.named))
                raise VirtualBoardError(f"virtual samna: sequential: no node is called '{item}'. Try one of {known}.")
            return self.named[item]()
        if isinstance(item, Jit):
            if before is None and not item.is_source:
                raise VirtualBoardError(
                    f"virtual samna: sequential: {type(item).__name__} cannot be the first of a chain, because what it "
                    "takes is what the node before it gives. Try JitSource in front."
                )
            return item.build(before)
        raise TypeError(f"virtual samna: sequential: expected nodes, names or builders, found {type(item).__name__}.")

    def has_node(self, node: Node) -> bool:
        """Return whether a node is part of the graph."""
        return node in self._nodes

    def start(self) -> bool:
        """Start the thread; return False where it runs already."""
        if self.is_running:
            return False
        self._is_stopping, self._fault = False, None
        self._thread = threading.Thread(target=_work, args=(weakref.ref(self),), name="virtual graph", daemon=True)
        _running.add(self)
        self._thread.start()
        return True

    def stop(self) -> bool:
        """End the thread after what was written before; return False where none runs.

        Raises: what a node failed with.
        """
        thread, fault = self._thread, self._fault
        if thread is None:
            return False
        self._is_stopping = True
        self.bell.ring()
        if thread is not threading.current_thread():
            thread.join(_DRAIN_S + 4.0)
        self._thread, self._fault = None, None
        if fault is not None:
            raise VirtualBoardError(f"virtual samna: a node failed: {type(fault).__name__}: {fault}") from fault
        return True

    def step(self) -> bool:
        """Let each node of this graph process what waits; return whether anything did."""
        done = [node.run() for node in tuple(self._nodes) if node._home is self]
        return any(done)

    def fail(self, fault: BaseException) -> None:
        """Keep what a node failed with, for ``stop`` to raise."""
        self._fault = fault

    def __repr__(self) -> str:
        return f"<virtual EventFilterGraph of {len(self._nodes)} nodes, {'running' if self.is_running else 'stopped'}>"


def _work(reference: weakref.ref[EventFilterGraph]) -> None:
    """Run a graph until it is stopped, or nobody holds it any more."""
    end_s: float | None = None
    while (graph := reference()) is not None:
        is_stopping = graph.is_stopping
        try:
            is_busy = graph.step()
        except Exception as fault:  # noqa: BLE001 - a thread has nobody to raise to; stop() does
            graph.fail(fault)
            return
        if is_stopping:
            end_s = end_s or time.monotonic() + _DRAIN_S
            if not is_busy or time.monotonic() > end_s:
                return
        bell = graph.bell
        del graph  # so that nothing here keeps it alive while it waits
        if not (is_busy or is_stopping):
            bell.wait()


def _check_fit(before: Node, after: Node) -> None:
    if before.gives is not None and after.takes is not None and not set(before.gives) & set(after.takes):
        gives, takes = (", ".join(sorted(kind.__name__ for kind in kinds)) for kinds in (before.gives, after.takes))
        raise VirtualBoardError(
            f"virtual samna: sequential: {type(before).__name__} gives {gives}, of which {type(after).__name__} takes "
            f"none (of {type(after).__module__}): it takes {takes}. Try nodes of the same chip."
        )


def source_to(node: Node) -> SourceNode:
    """Return a source in front of a node, in a graph of its own that runs."""
    source = SourceNode()
    source.takes = node.takes
    _run_pair(source, node, holder=source)
    return source


def sink_from(node: Node) -> SinkNode:
    """Return a sink behind a node, in a graph of its own that runs."""
    sink = SinkNode()
    _run_pair(node, sink, holder=sink)
    return sink


def _run_pair(before: Node, after: Node, *, holder: Node) -> None:
    """Join two nodes in a graph of their own, which runs as long as ``holder`` lives."""
    holder.graph = EventFilterGraph()
    holder.graph.sequential([before, after])
    holder.graph.start()


@atexit.register
def _stop_all() -> None:
    for graph in tuple(_running):
        graph._is_stopping = True
        graph.bell.ring()
