"""The settings that a search over scales tries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from .normalize import Scaling

_SPIKES = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0)
_FACTORS = (0.5, 0.7, 1.4, 2.0)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What ``convert`` takes to make a net: its scaling and the lower bound of its potentials."""

    scaling: Scaling
    v_min: float | None

    def __str__(self) -> str:
        bound = "no lower bound" if self.v_min is None else f"lower bound {self.v_min:g}"
        s = self.scaling
        rule = f"percentile {s.percentile:g} of {s.over}" if s.rule == "percentile" else s.rule
        each = " per channel" * s.per_channel + " equalized" * s.equalize
        share = " by cost" * (s.share == "cost")
        return f"{rule}{each}, {s.spikes:.4g} spikes{share}, {s.start} start, {bound}"

    def with_spikes(self, spikes: float) -> Setting:
        """Return the setting with another number of spikes."""
        return dataclasses.replace(self, scaling=dataclasses.replace(self.scaling, spikes=spikes))


def baselines(n_steps: int, usual: Setting) -> tuple[Setting, ...]:
    """Return what is always tried: ``usual``, and weights as trained, for a CNN that reads sums or steps.

    The latter is what sinabs' ``from_model`` makes: lower bound -1, and where the CNN was trained on single steps, a
    gain of as many as there are.
    """
    trained = Scaling(rule="trained", spikes=1.0, n_steps=n_steps, start="zero")
    every_step = dataclasses.replace(trained, spikes=float(n_steps))
    return tuple(dict.fromkeys((usual, Setting(trained, -1.0), Setting(every_step, -1.0))))


def coarse_grid(n_steps: int, v_mins: Sequence[float | None]) -> tuple[Setting, ...]:
    """Return the first settings: spike counts from few to many, shared by cost or equally, starts, lower bounds.

    A net of one step never comes back to its lower bound, so there the first one stands for all.
    """
    bounds = tuple(v_mins) if n_steps > 1 else tuple(v_mins)[:1]
    by_cost = [
        Setting(Scaling(spikes=spikes, n_steps=n_steps, start=start, share="cost"), bound)
        for spikes in _SPIKES
        for start in ("half", "calibrated")
        for bound in bounds
    ]
    equal = [
        Setting(Scaling(spikes=spikes, n_steps=n_steps, start="half"), bound)
        for spikes in _SPIKES[2:5]
        for bound in bounds
    ]
    return (*by_cost, *equal)


def references(n_steps: int, v_min: float | None) -> tuple[Setting, ...]:
    """Return the settings of the coarse grid with the most spikes and this lower bound."""
    scaling = Scaling(spikes=_SPIKES[-1], n_steps=n_steps, share="cost")
    starts = (dataclasses.replace(scaling, start="half"), dataclasses.replace(scaling, start="calibrated"))
    return tuple(Setting(start, v_min) for start in starts)


def variants(setting: Setting) -> Iterator[Setting]:
    """Yield the neighbors of a setting: each differs from it in one thing."""
    spikes: list[dict[str, object]] = [{"spikes": setting.scaling.spikes * factor} for factor in _FACTORS]
    changes: list[dict[str, object]] = [
        {"rule": "mse"},
        {"rule": "balance"},
        {"rule": "percentile", "percentile": 99.0},
        {"rule": "percentile", "percentile": 100.0},
        {"per_channel": not setting.scaling.per_channel},
        {"equalize": not setting.scaling.equalize},
        {"start": "half"},
        {"start": "calibrated"},
        {"share": "equal" if setting.scaling.share == "cost" else "cost"},
        *spikes,
    ]
    for change in changes:
        scaling = dataclasses.replace(setting.scaling, **change)  # type: ignore[arg-type]
        if scaling != setting.scaling:
            yield Setting(scaling, setting.v_min)
    if setting.scaling.n_steps > 1:
        finer = (-8.0,) if setting.v_min is None else (setting.v_min / 2, setting.v_min * 2)
        yield from (Setting(setting.scaling, bound) for bound in finer)
