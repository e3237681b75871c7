"""What rounding costs: the vendor's formula and ours against the same nets in high resolution, event by event.

``python -m spikeport.deploy.bench.rounding --cache FOLDER`` prints the table for the digits, N-MNIST and gesture nets;
the folder keeps trained weights. Nets whose data is not there are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.pipeline import convert
from spikeport.convert.rasters import stack_rasters
from spikeport.convert.simulate import STEP_US
from spikeport.convert.types import SpikingNet
from spikeport.deploy.discretize import discretize, fitted
from spikeport.deploy.resolution import Entering, FineNet, as_fine, class_counts, count_changes, enter_events, fine
from spikeport.deploy.resolution import run_fine as run
from spikeport.deploy.trial import fit_to
from spikeport.models.data import gestures
from spikeport.models.gesture_cnn import gesture_cnn
from spikeport.models.weights import load_weights

from .run import spikeport_default
from .tasks import STEP_US as IMAGE_STEP_US
from .tasks import Effort, make_task, missing, shared_data

METHODS = ("vendor", "fitted without data", "fitted")
_N_STEPS = 32
_N_CALIBRATION = 64
_N_LAYERWISE = 40


@dataclasses.dataclass(frozen=True, eq=False)
class RoundingTask:
    """A spiking net, a raster to fit its integers to, and other recordings to test on with their classes."""

    name: str
    net: SpikingNet
    raster: NDArray[np.generic]
    test: Sequence[Entering]
    labels: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class RoundingRow:
    """What one method does to one net.

    Units: ``n_right`` of ``n`` recordings, ``n_right_fine`` in high resolution. ``layers`` is, for each layer by itself
    (see ``count_changes``), the share of its spikes that change; ``classes`` the share of output spikes that change in
    the whole net, mostly because spikes that come earlier or later change the order of others.
    """

    task: str
    method: str
    n: int
    n_right: int
    n_right_fine: int
    layers: tuple[float, ...]
    classes: float

    @property
    def layer_mean(self) -> float:
        """The mean of ``layers``."""
        return float(np.mean(self.layers))

    def __str__(self) -> str:
        loss = 100 * (self.n_right_fine - self.n_right) / self.n
        each = " ".join(f"{share:.2%}" for share in self.layers)
        return (
            f"{self.task:12} {self.method:20} {self.n_right:4} right of {self.n:4} ({loss:+.2f} points lost)  "
            f"spikes changed: {self.layer_mean:.2%} of a layer, {self.classes:.2%} of the output  [{each}]"
        )


def measure_rounding(task: RoundingTask) -> tuple[RoundingRow, ...]:
    """Return a row for each of ``METHODS``."""
    reference = fine(task.net)
    integers = (
        discretize(task.net, method="vendor"),
        discretize(fitted(task.net)),
        discretize(fit_to(task.net, task.raster)),
    )
    variants = [as_fine(one) for one in integers]
    alone = sum(count_changes(reference, variants, entering) for entering in task.test[:_N_LAYERWISE])
    answers = [_answers(one, task.test) for one in (reference, *variants)]
    right = [_n_right(one, task.labels) for one in answers]
    rows = []
    for index, method in enumerate(METHODS):
        changed = np.abs(answers[index + 1] - answers[0]).sum() / max(1, answers[0].sum())
        shares = tuple(float(row[index] / max(1, row[-1])) for row in np.asarray(alone))
        rows.append(RoundingRow(task.name, method, len(task.test), right[index + 1], right[0], shares, float(changed)))
    return tuple(rows)


def _answers(net: FineNet, recordings: Sequence[Entering]) -> NDArray[np.int64]:
    return np.stack([class_counts(net, run(net, entering)) for entering in recordings])


def _n_right(counts: NDArray[np.int64], labels: NDArray[np.int64]) -> int:
    """Return how many classes are right; of several with most spikes each counts as its share."""
    best = counts == counts.max(axis=1, keepdims=True)
    return round(float((best[np.arange(len(labels)), labels] / best.sum(axis=1)).sum()))


def task_of(name: str, seed: int, *, effort: Effort, cache: Path | None = None) -> RoundingTask:
    """Return a task of the conversion benchmark, converted as by default."""
    made = make_task(name, seed, effort=effort, cache=cache)
    net = spikeport_default(made, _N_STEPS)
    hz = 1e6 / IMAGE_STEP_US
    channels = net.input_shape[0]
    test = [enter_events(events, channels, slow_clock_hz=hz) for events in made.test.events(_N_STEPS)]
    raster = made.train.first(_N_CALIBRATION).raster(_N_STEPS)
    return RoundingTask(f"{name} {seed}", net, raster, test, made.test.labels)


def gesture_tasks() -> Iterator[RoundingTask]:
    """Yield the gesture net with public weights twice: fitted to each half of the recordings, tested on the other."""
    folder = shared_data()
    if not (folder / "dvs128_gesture").is_dir():
        return
    module = gesture_cnn()
    load_weights(module, folder / "weights" / "sinabs_dvs_gesture_params.pt")
    net = convert(module, (2, 128, 128)).net
    found = gestures(folder / "dvs128_gesture")
    recordings = [events.from_zero() for events in found.recordings]
    for half in (0, 1):
        raster = stack_rasters(recordings[half::2], STEP_US, merge_polarity=False)
        test = [enter_events(events, 2) for events in recordings[1 - half :: 2]]
        yield RoundingTask(f"gesture {half}", net, raster, test, found.labels[1 - half :: 2])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, help="Folder that keeps trained weights.")
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of the digits and N-MNIST nets.")
    options = parser.parse_args()
    effort = Effort()
    for name in ("digits", "nmnist"):
        if missing(name):
            print(f"{name} left out, missing {missing(name)}")
            continue
        for seed in range(options.seeds):
            print(*measure_rounding(task_of(name, seed, effort=effort, cache=options.cache)), sep="\n", flush=True)
    for task in gesture_tasks():
        print(*measure_rounding(task), sep="\n", flush=True)


if __name__ == "__main__":
    main()
