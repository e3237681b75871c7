"""The pictures of a diagnosis: spikes against activations for each layer, and the curves of accuracy, as SVG."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeport.convert.diagnosis.diagnose import Diagnosis, LayerDiagnosis

from .plots import ACCENT, FAINT, INK, drawing, to_svg

_SIZE = 2.6
_DPI = 150
"""Of the points, which are one small picture: thousands of them as shapes would be most of the page."""


def layer_scatter(layer: LayerDiagnosis, color: str) -> str:
    """Return the spikes of a sample of neurons over the activations of the CNN, as SVG.

    The dashed line is where they are equal, the other the line through the origin with the least squared error.
    """
    a, n = layer.activations, layer.spikes
    right = 1.08 * max(float(a.max(initial=0)), 1.0)
    top = 1.08 * max(float(n.max(initial=0)), 1.0)
    with drawing(f"scatter-{layer.name}", (_SIZE, _SIZE * 0.9)) as (figure, (axes,)):
        axes.grid(color=FAINT, lw=0.5)
        axes.set_axisbelow(True)
        axes.scatter(a, n, s=7, color=color, alpha=0.35, lw=0, rasterized=True)
        ends = np.array([0.0, right])
        axes.plot(ends, ends, color=INK, lw=0.8, ls=(0, (4, 3)))
        axes.plot(ends, layer.slope * ends, color=color, lw=1.6)
        axes.set(xlim=(0, right), ylim=(-0.02 * top, top), xlabel="activation of the CNN (spikes)", ylabel="spikes")
        return to_svg(figure, f"Spikes over activations of the CNN: slope {layer.slope:.3g}, R2 {layer.r2:.3g}.", _DPI)


def accuracy_curves(diagnosis: Diagnosis) -> str:
    """Return the accuracy over time steps, spikes and synops of one recording as SVG.

    Without labels: the share of classes that are those of the CNN. The dashed line is the CNN.
    """
    points = diagnosis.curve
    labelled = diagnosis.cnn_accuracy is not None
    shares = [100 * ((point.accuracy if labelled else point.agreement) or 0.0) for point in points]
    cnn = 100.0 if diagnosis.cnn_accuracy is None else 100 * diagnosis.cnn_accuracy
    columns: dict[str, list[float]] = {
        "time steps": [point.n_steps for point in points],
        "spikes of all layers": [point.spikes for point in points],
    }
    synops = [point.synops for point in points if point.synops is not None]
    if len(synops) == len(points):
        columns["synops"] = synops
    with drawing("accuracy-curves", (9.4, 2.5), (1,) * len(columns)) as (figure, axes):
        for place, (name, values) in zip(axes, columns.items(), strict=True):
            place.grid(color=FAINT, lw=0.5)
            place.set_axisbelow(True)
            place.axhline(cnn, color=INK, lw=0.8, ls=(0, (4, 3)))
            x = np.where(np.array(values) > 0, values, np.nan)  # no spikes have no place on this axis
            place.plot(x, shares, color=ACCENT, lw=1.6, marker="o", ms=4, clip_on=False)
            place.set_xscale("log", base=2 if name == "time steps" else 10)
            if name == "time steps":
                place.set_xticks(values)
            place.xaxis.set_major_formatter(_count)
            place.minorticks_off()
            place.set(xlabel=f"{name} of one recording", ylim=(0, 105))
        axes[0].set(ylabel="right (%)" if labelled else "same class as the CNN (%)")
        for place in axes[1:]:
            place.set_yticklabels([])
        what = "right classes" if labelled else "classes that are those of the CNN"
        return to_svg(figure, f"Share of {what} over time steps, spikes and synops; the dashed line is the CNN.")


def _count(value: float, _: Any) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"
