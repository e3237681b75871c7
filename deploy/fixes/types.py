"""The records of suggestions: a change that was tried, and what it costs."""

from __future__ import annotations

import dataclasses
from typing import Any

from spikeport.convert.types import SpikingNet
from spikeport.deploy.plan import Plan


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a net occupies on a chip.

    Units: memory in words of all its cores; ``n_synops`` is the number of neuron updates where every input and every
    neuron spikes once, zeros of a dense kernel included: the net's own activity is not known to a plan.
    """

    n_cores: int
    kernel_words: int
    neuron_words: int
    bias_words: int
    n_synops: int


@dataclasses.dataclass(frozen=True, eq=False)
class Fix:
    """A change with which a net fits, tried before it was returned.

    ``title`` is one sentence, ``kinds`` the kinds of its changes. ``is_exact``: the net gives the same spikes in
    simulation, but for the order in which sums are rounded. ``needs_retraining``: the weights of ``net`` only have the
    right shapes, and ``training`` says what to train instead. ``error`` is how far the weights are from those given, as
    a share of their norm, None where that is not known; ``caution`` says what it means. ``before`` is what the net
    occupied as it was given.
    Law: ``plan.fits``; ``plan`` is that of ``net`` on the chip that it names.
    """

    title: str
    kinds: tuple[str, ...]
    is_exact: bool
    needs_retraining: bool
    net: SpikingNet = dataclasses.field(repr=False)
    plan: Plan = dataclasses.field(repr=False)
    cost: Cost
    before: Cost
    training: str | None = None
    caution: str | None = None
    error: float | None = None

    @property
    def kind(self) -> str:
        """The kinds of its changes as text."""
        return " + ".join(self.kinds)

    @property
    def chip(self) -> str:
        """The chip that the changed net fits."""
        return self.plan.chip

    def to_dict(self) -> dict[str, Any]:
        """Return the suggestion in plain values, for JSON."""
        return {
            "title": self.title,
            "kind": self.kind,
            "chip": self.chip,
            "is_exact": self.is_exact,
            "needs_retraining": self.needs_retraining,
            "training": self.training,
            "caution": self.caution,
            "error": self.error,
            "cores": list(self.plan.placement.cores or ()),
            "cost": dataclasses.asdict(self.cost),
            "before": dataclasses.asdict(self.before),
        }
