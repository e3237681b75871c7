"""Fine-tune on real N-MNIST: emulated chip before and after, and at half the synops, by k-fold cross-validation.

One JSON line per fold and seed goes to stdout as soon as it is known, then a table of the means. The CNN of a fold is
trained once, as in example 02; the seeds are those of fine-tuning.
The recordings (N-MNIST, Orchard et al., CC BY-SA 4.0) are third party and not shipped.
"""

import argparse
import dataclasses
import json
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from shared_data import shared_data

from spikeport.convert import FinetuneSettings, Scaling, SpikingNet, convert, finetune
from spikeport.deploy import compare, compile_program
from spikeport.models import EventDataset, TrainSettings, digits_cnn, frames_of, k_folds, nmnist, train
from spikeport.models.console import show, table

STAGES = ("converted", "fine-tuned", "fine-tuned to half the synops")


def measure(cnn: torch.nn.Module, net: SpikingNet, test_set: EventDataset) -> dict[str, float]:
    """Return accuracies of all stages of the path, and the synops that the emulated chip counted per recording."""
    program = compile_program(net, "speck2fdevkit")
    found = compare(cnn, net, program=program, recordings=test_set.recordings, labels=test_set.labels)
    return {
        "cnn": found.cnn.share,
        "spiking": found.spiking.share,
        "chip": found.chip.share,
        "synops": found.synops.total / len(test_set),
    }


@dataclasses.dataclass(frozen=True)
class Fold:
    """A CNN with the recordings that it was trained on, and those to test on."""

    index: int
    cnn: torch.nn.Module
    train_set: EventDataset
    test_set: EventDataset


def learn(index: int, given: argparse.Namespace) -> Fold:
    """Train the CNN of a fold."""
    torch.set_num_threads(1)
    everything = nmnist(shared_data() / "nmnist", "train")
    inside, outside = k_folds(len(everything), given.folds)[index]
    train_set, test_set = everything.subset(inside), everything.subset(outside)
    torch.manual_seed(index)
    cnn = digits_cnn(2)
    train(cnn, train_set, settings=TrainSettings(epochs=given.cnn_epochs, seed=index))
    return Fold(index, cnn, train_set, test_set)


def tune(fold: Fold, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Convert and fine-tune on one set, freely and to half the synops; return what each net makes of the other set."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    cnn, train_set, test_set = fold.cnn, fold.train_set, fold.test_set
    frames = frames_of(train_set.recordings)
    found = {"converted": measure(cnn, convert(cnn, (2, 34, 34), data=frames).net, test_set)}
    # Few spikes cost few synops, and a lower bound far away forgets nothing: what that loses, fine-tuning gains back.
    start = convert(cnn, (2, 34, 34), data=frames, scaling=Scaling(spikes=given.spikes), v_min=-8.0).net
    settings = FinetuneSettings(epochs=given.epochs, validation_share=0.02, seed=seed)
    tuned = finetune(start, train_set.recordings, train_set.labels, settings=settings)
    found["fine-tuned"] = measure(cnn, tuned.net, test_set)
    settings = dataclasses.replace(settings, synop_target=tuned.best.synops / 2)
    half = finetune(start, train_set.recordings, train_set.labels, settings=settings)
    found["fine-tuned to half the synops"] = measure(cnn, half.net, test_set)
    wall_s = round(time.perf_counter() - started, 1)
    return {"fold": fold.index, "seed": seed, "wall_s": wall_s, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--runs", type=int, help="stop after so many folds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--cnn-epochs", type=int, default=150)
    parser.add_argument("--spikes", type=float, default=10.0)
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    given = parser.parse_args()
    n_folds = given.runs or given.folds
    runs: list[dict[str, Any]] = []
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        folds = list(pool.map(learn, range(n_folds), repeat(given)))
        wanted = [(fold, seed) for seed in range(given.seeds) for fold in folds]
        for found in pool.map(tune, *zip(*wanted, strict=True), repeat(given)):
            print(json.dumps(found), flush=True)
            runs.append(found)
    rows = []
    for stage in STAGES:
        of_seeds = {
            key: [
                float(np.mean([run[stage][key] for run in runs if run["seed"] == seed])) for seed in range(given.seeds)
            ]
            for key in ("cnn", "spiking", "chip", "synops")
        }
        shares = (f"{np.mean(of_seeds[key]):.1%} ± {np.std(of_seeds[key]):.1%}" for key in ("cnn", "spiking", "chip"))
        rows.append((stage, *shares, round(float(np.mean(of_seeds["synops"])))))
    title = f"N-MNIST, {n_folds} of {given.folds} folds, {given.seeds} seeds: mean and spread over the seeds"
    show(table(title, ("Net", "CNN", "Spiking net", "Emulated chip", "Synops a recording"), rows))


if __name__ == "__main__":
    main()
