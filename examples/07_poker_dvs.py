"""Train recurrent LIF neurons on card symbols, with several seeds; plot potentials, currents, spikes and accuracy.

With the real recordings: 71 upright ones of POKER-DVS to train on, 29 to test (Serrano-Gotarredona and
Linares-Barranco 2015, non-commercial use, not shipped). Without them: generated symbols.
One line for each seed goes to stdout; the plots go to a folder.
"""

import argparse
import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

from spikeport.models import EventDataset, train
from spikeport.models.infer import evaluate
from spikeport.models.lif_predictor import LifPredictor
from spikeport.models.poker import POKER_SIZE, poker
from spikeport.models.recurrent_lif import RecurrentLif
from spikeport.models.sparse import sparse_events
from spikeport.models.splits import split_by_class
from spikeport.models.symbols import symbols

SHARED = Path(os.environ.get("SPIKEPORT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
N_TEST = 29


def find_recordings() -> EventDataset:
    archive = SHARED / "poker_dvs" / "pips_dat.zip"
    if archive.is_file():
        return poker(archive)
    print(f"No POKER-DVS at {archive}: generated symbols in its place. SPIKEPORT_DATA may name a folder that has it.")
    return symbols(100)


def plot_recording(module: RecurrentLif, dataset: EventDataset, path: Path) -> None:
    """Plot what neurons and readout do during one recording."""
    import matplotlib.pyplot as plt

    events = dataset.recordings[0]
    steps = sparse_events([events], n_steps=int(events.t_us[-1]) // 1000 + 1, step_us=1000)
    with torch.no_grad():
        outcome = module.run(steps, record=True)
    assert outcome.trace is not None
    v, i, z = (tensor[:, 0].numpy() for tensor in (outcome.trace.v, outcome.trace.i, outcome.trace.z))
    figure, axes = plt.subplots(4, 1, figsize=(7, 9), sharex=True)
    axes[0].plot(v[:, :10])
    axes[0].axhline(module.config.v_th, color="black", linestyle=":")
    axes[0].set_ylabel("potential, 10 neurons")
    axes[1].plot(i[:, :10])
    axes[1].set_ylabel("current, 10 neurons")
    axes[2].scatter(*np.nonzero(z), s=4, color="black")
    axes[2].set_ylabel("neuron that fires")
    for name, potential in zip(dataset.classes, outcome.potentials[:, 0].T.numpy(), strict=True):
        axes[3].plot(potential, label=name)
    axes[3].set(ylabel="potential of the readout", xlabel="time in ms")
    axes[3].legend()
    figure.suptitle(f"{dataset.name}: {dataset.classes[int(dataset.labels[0])]}")
    figure.savefig(path)
    plt.close(figure)


def plot_training(histories: list[tuple[tuple[float, float], ...]], found: list[float], path: Path) -> None:
    """Plot loss and accuracy over the epochs of all seeds, and the accuracy on held-out recordings."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    for seed, history in enumerate(histories):
        epochs = range(1, len(history) + 1)
        left.plot(epochs, [loss for loss, _ in history], label=f"seed {seed}")
        (line,) = right.plot(epochs, [100 * share for _, share in history])
        right.plot(len(history), 100 * found[seed], "o", color=line.get_color())
    left.set(xlabel="epoch", ylabel="loss", yscale="log")
    left.legend()
    right.set(xlabel="epoch", ylabel="right in %: lines training, dots held out")
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("poker"))
    given = parser.parse_args()
    mpl.use("Agg")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    train_set, test_set = split_by_class(find_recordings(), N_TEST)
    print(f"{train_set.source}: {len(train_set)} recordings to train on, {len(test_set)} to test")
    histories, found = [], []
    for seed in range(given.seeds):
        torch.manual_seed(seed)
        module = RecurrentLif(2 * POKER_SIZE[0] * POKER_SIZE[1], given.hidden, len(train_set.classes))
        result = train(module, train_set, epochs=given.epochs)
        predictor = LifPredictor(module, (2, *POKER_SIZE), train_set.classes)
        tested = evaluate(predictor, test_set, metrics=["accuracy", "spikes"])
        histories.append(result.history)
        found.append(tested["accuracy"])
        spikes = tested["spikes"]["per_sample"]
        print(
            f"seed {seed}: held out {found[-1]:.1%}, training {result.best_accuracy:.1%}, loss "
            f"{result.history[-1][0]:.3f}, {spikes:.0f} spikes a recording, {result.wall_s:.1f} s"
        )
        if seed == 0:
            predictor.save(given.out / "lif.safetensors")
            plot_recording(module, test_set, given.out / "recording.png")
    plot_training(histories, found, given.out / "training.png")
    n_good = sum(share >= 0.96 for share in found)
    print(f"{n_good} of {len(found)} seeds have at least 96% on the {len(test_set)} held-out recordings")


if __name__ == "__main__":
    main()
