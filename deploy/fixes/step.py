"""One change to a net: what it says, what it leads to, and what it does to the function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from .draft import Draft


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A change and the draft that it leads to.

    ``clause`` says what to change, as an order without a full stop. ``error`` gives how far the weights then are from
    those given, as a share of their norm, where the change needs no training and is not exact; ``caution`` says what
    that means. Without training and without caution the change is exact.
    """

    kind: str
    clause: str
    draft: Draft
    needs_retraining: bool = False
    caution: str | None = None
    error: Callable[[], float] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether the function stays the same."""
        return not self.needs_retraining and self.caution is None


def trained(kind: str, clause: str, before: Draft, after: Draft) -> Step:
    """Return the change to a net that has to be trained; it says which kernels follow the maps that they cover."""
    kernels = {form.name: form.window.kernel for form in before.layers if form.covers_input}
    now = {form.name: form.window.kernel for form in after.layers if form.name in kernels}
    moved = [f"the kernel of '{name}' becomes {size(now[name])}" for name in now if now[name] != kernels[name]]
    return Step(kind, clause + (f" ({listed(moved)})" if moved else ""), after, needs_retraining=True)


def names(draft: Draft, layers: Sequence[int]) -> str:
    """Return the names of layers as text: ``layer 'a'``, ``layers 'a' and 'b'``."""
    quoted = [f"'{draft.layers[index].name}'" for index in layers]
    return f"layer{'s' if len(quoted) > 1 else ''} {listed(quoted)}"


def listed(parts: Sequence[str]) -> str:
    """Return parts as text: ``a, b and c``."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def size(pair: tuple[int, ...]) -> str:
    """Return a size as text: ``3x3``."""
    return "x".join(map(str, pair))
