"""A small diagnosis by hand, for the report."""

from __future__ import annotations

import numpy as np

from spikeport.convert.diagnosis.causes import Verdict
from spikeport.convert.diagnosis.curves import CurvePoint
from spikeport.convert.diagnosis.diagnose import Diagnosis, LayerDiagnosis
from spikeport.deploy.diagnosis import CoreDiagnosis

BAD = Verdict("out & done", "lower bound too tight", "the bound of -0.1 thresholds takes <all>.", "Try --v-min -4.")


def some_layer(verdict: Verdict, seed: int = 0) -> LayerDiagnosis:
    rng = np.random.default_rng(seed)
    activations = rng.exponential(5, 300)
    shares = dict.fromkeys(
        ("bound_share", "saturated_share", "uneven_share", "dead_share", "silent_share", "error_share"), 0.125
    )
    return LayerDiagnosis(
        verdict=verdict,
        n_neurons=75,
        mean_activation=5.0,
        mean_spikes=4.5,
        slope=0.9,
        r2=0.97,
        slope_free=0.92,
        intercept=-0.4,
        r2_free=0.98,
        own_slope=0.95,
        error=0.2,
        own_error=0.1,
        parts={"inherited": 0.1, "lower bound": 0.31},
        activations=activations.astype(np.float32),
        spikes=np.floor(activations).astype(np.float32),
        **shares,
    )


def some_diagnosis(*, labelled: bool = True, healthy: bool = False) -> Diagnosis:
    fine = Verdict("conv", "healthy", "error of its own 10% of its spikes.", "")
    layers = (some_layer(fine), some_layer(fine if healthy else BAD, 1))
    accuracy = 0.875 if labelled else None
    curve = tuple(CurvePoint(n, 10.0 * (n - 1), 2000.0 * n, 0.5, accuracy) for n in (1, 2, 4, 7))
    return Diagnosis(layers, curve, None, 0.96 if labelled else None, 16, 7)


def some_cores() -> tuple[CoreDiagnosis, ...]:
    parts = {"int8": 0.01, "lower bound": 0.4, "clipping": 0.0, "bias": 0.0}
    return (CoreDiagnosis(BAD, 7, 48, 0.8, 0.45, 0.0, 0.0, 0.1, parts),)
