"""Train on real N-MNIST: CNN, spiking net and emulated chip on the test recordings and by 5-fold cross-validation.

The recordings (N-MNIST, Orchard et al., CC BY-SA 4.0) are third party and not shipped.
"""

import argparse

import torch
from shared_data import shared_data

from spikeport.convert import convert
from spikeport.deploy import Comparison, compare, compile_program
from spikeport.models import EventDataset, TrainSettings, digits_cnn, frames_of, k_folds, nmnist, train
from spikeport.models.console import say, show, table


def port(train_set: EventDataset, test_set: EventDataset, epochs: int, seed: int) -> Comparison:
    """Train on one set and return what CNN, spiking net and emulated chip make of the other."""
    torch.manual_seed(seed)
    cnn = digits_cnn(2)
    train(cnn, train_set, settings=TrainSettings(epochs=epochs, seed=seed))
    net = convert(cnn, (2, 34, 34), data=frames_of(train_set.recordings)).net
    program = compile_program(net, "speck2fdevkit")
    return compare(cnn, net, program=program, recordings=test_set.recordings, labels=test_set.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    folder = shared_data() / "nmnist"
    everything = nmnist(folder, "train")
    held_out = port(everything, nmnist(folder, "test"), given.epochs, 0)
    folds = []
    for number, (inside, outside) in enumerate(k_folds(len(everything), given.folds)):
        folds.append(port(everything.subset(inside), everything.subset(outside), given.epochs, number))
        say(f"fold {number + 1}: " + ", ".join(f"{one.name} {one.share:.1%}" for one in folds[-1].accuracies))
    rows = [("50 test recordings", *(f"{one.share:.1%}" for one in held_out.accuracies))]
    n = len(everything)
    pooled = [sum(fold.accuracies[stage].n_right for fold in folds) / n for stage in range(3)]
    rows.append((f"{given.folds}-fold over {n:,}", *(f"{share:.1%}" for share in pooled)))
    columns = ("N-MNIST, tutorial CNN", "CNN", "Spiking net", "Emulated chip")
    gap = 100 * (pooled[0] - pooled[2])
    show(table("Accuracy", columns, rows), f"Cross-validated: CNN minus chip {gap:.1f} points")


if __name__ == "__main__":
    main()
