"""Builders of nodes, which the driver compiles when a chain is joined; here they only choose a node.

Filters in C++ source (``JitFilter``) are refused: there is no compiler here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from .errors import VirtualBoardError
from .events import Variant
from .filters import (
    DvsToViz,
    EventCounterSink,
    EventCrop,
    EventDecimate,
    EventRescale,
    EventToggle,
    EventTypeFilter,
    MajorityReadoutNode,
    MemberSelect,
    SpikeCollection,
    SpikeCountNode,
)
from .graph import Jit, Node, SinkNode, SourceNode


def _builder(name: str, node: Callable[..., Node], *, n_types: int = 0, doc: str = "") -> type[Jit]:
    """Return the builder ``name`` of a node; ``n_types`` types are asked for, and given to the node."""

    class Builder(Jit):
        def __init__(self, *kinds: type) -> None:
            if len(kinds) != n_types or not all(isinstance(kind, type) for kind in kinds):
                wanted = "a type of events" if n_types else "nothing"
                raise TypeError(f"virtual samna: {name}: expected {wanted}, found {kinds!r:.60}.")
            self._kinds = kinds

        def build(self, before: Node | None) -> Node:  # noqa: ARG002
            return node(*self._kinds)

    Builder.__name__ = Builder.__qualname__ = name
    Builder.__doc__ = doc or f"Builds a {name.removeprefix('Jit')}."
    return Builder


class JitSource(Jit):
    """Builds a source of one type of events, or of several."""

    is_source: ClassVar[bool] = True

    def __init__(self, kind: type) -> None:
        if not isinstance(kind, type):
            raise TypeError(f"virtual samna: JitSource: expected a type of events, found {kind!r:.60}.")
        self._kind = kind

    def build(self, before: Node | None) -> Node:
        """Return the source, which is the first of its chain."""
        if before is not None:
            raise VirtualBoardError("virtual samna: sequential: JitSource must be the first of a chain.")
        source = SourceNode()
        source.takes = source.gives = self._kind.kinds if isinstance(self._kind, Variant) else (self._kind,)
        return source


class JitFilter(Jit):
    """Stands for a filter in C++ source, which the virtual driver cannot compile.

    Raises: VirtualBoardError, when it is made.
    """

    def __init__(self, name: str, source: str, debug: bool = False) -> None:  # noqa: ARG002
        raise VirtualBoardError(
            f"virtual samna: {type(self).__name__} '{name}': the virtual board has no C++ compiler. "
            "Try one of the built-in filters, or filtering what get_events() returns."
        )


class JitFunctionFilter(JitFilter):
    """As ``JitFilter``."""


BUILDERS: dict[str, type[Jit]] = {
    "JitSource": JitSource,
    "JitFilter": JitFilter,
    "JitFunctionFilter": JitFunctionFilter,
    "JitSink": _builder("JitSink", SinkNode),
    "JitMemberSelect": _builder("JitMemberSelect", MemberSelect),
    "JitEventTypeFilter": _builder("JitEventTypeFilter", EventTypeFilter),
    "JitSpikeCollection": _builder("JitSpikeCollection", SpikeCollection, n_types=1),
    "JitSpikeCount": _builder("JitSpikeCount", lambda _: SpikeCountNode(), n_types=1),
    "JitMajorityReadout": _builder("JitMajorityReadout", lambda _: MajorityReadoutNode(), n_types=1),
    "JitDvsEventToViz": _builder("JitDvsEventToViz", lambda _: DvsToViz(), n_types=1),
    "JitEventCounterSink": _builder("JitEventCounterSink", EventCounterSink),
    "JitEventToggle": _builder("JitEventToggle", EventToggle),
    "JitEventCrop": _builder("JitEventCrop", EventCrop),
    "JitEventDecimate": _builder("JitEventDecimate", EventDecimate),
    "JitEventRescale": _builder("JitEventRescale", EventRescale),
}
