"""Fine-tune on real N-MNIST: emulated chip before and after, and at half the synops, by k-fold cross-validation.

One JSON line per fold and seed goes to stdout as soon as it is known, then a table of the means. The CNN of a fold is
trained once, as in example 02; the seeds are those of fine-tuning.
The recordings (N-MNIST, Orchard et al., CC BY-SA 4.0) are third party and not shipped.
"""

import argparse
import dataclasses
import json
import time
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


def tune(
    cnn: torch.nn.Module, train_set: EventDataset, test_set: EventDataset, given: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """Convert and fine-tune on one set; return what each net makes of the other."""
    frames = frames_of(train_set.recordings)
    found = {"converted": measure(cnn, convert(cnn, (2, 34, 34), data=frames).net, test_set)}
    # Few spikes cost few synops, and a lower bound far away forgets nothing: what that loses, fine-tuning gains back.
    start = convert(cnn, (2, 34, 34), data=frames, scaling=Scaling(spikes=given.spikes), v_min=-8.0).net
    settings = FinetuneSettings(epochs=given.epochs, validation_share=0.05, seed=seed)
    tuned = finetune(start, train_set.recordings, train_set.labels, settings=settings)
    found["fine-tuned"] = measure(cnn, tuned.net, test_set)
    settings = dataclasses.replace(settings, epochs=max(1, given.epochs // 2), synop_target=0.5)
    half = finetune(tuned.net, train_set.recordings, train_set.labels, settings=settings)
    found["fine-tuned to half the synops"] = measure(cnn, half.net, test_set)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--runs", type=int, help="stop after so many folds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--cnn-epochs", type=int, default=150)
    parser.add_argument("--spikes", type=float, default=10.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    everything = nmnist(shared_data() / "nmnist", "train")
    runs: list[list[dict[str, Any]]] = [[] for _ in range(given.seeds)]
    for fold, (inside, outside) in enumerate(k_folds(len(everything), given.folds)[: given.runs]):
        train_set, test_set = everything.subset(inside), everything.subset(outside)
        torch.manual_seed(fold)
        cnn = digits_cnn(2)
        train(cnn, train_set, settings=TrainSettings(epochs=given.cnn_epochs, seed=fold))
        for seed, folds in enumerate(runs):
            started = time.perf_counter()
            found = tune(cnn, train_set, test_set, given, seed)
            folds.append(found)
            wall_s = round(time.perf_counter() - started, 1)
            print(json.dumps({"fold": fold, "seed": seed, "wall_s": wall_s, **found}), flush=True)
    rows = []
    for stage in STAGES:
        of_seeds = {
            key: [float(np.mean([fold[stage][key] for fold in folds])) for folds in runs]
            for key in ("cnn", "spiking", "chip", "synops")
        }
        shares = (f"{np.mean(of_seeds[key]):.1%} ± {np.std(of_seeds[key]):.1%}" for key in ("cnn", "spiking", "chip"))
        rows.append((stage, *shares, round(float(np.mean(of_seeds["synops"])))))
    title = f"N-MNIST, {given.folds}-fold, {given.seeds} seeds: mean and spread over the seeds"
    show(table(title, ("Net", "CNN", "Spiking net", "Emulated chip", "Synops a recording"), rows))


if __name__ == "__main__":
    main()
