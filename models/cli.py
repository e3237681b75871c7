"""The command of networks: ``train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .console import emit, hint, say, table


def train_command(
    network: Annotated[str, typer.Argument(help="digits, digits-merged, digits-64, digits-64-merged, ...")] = "digits",
    data: Annotated[str, typer.Option(help="digits (simulated), nmnist:FOLDER or gestures:FOLDER.")] = "digits",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Weights to write; default NETWORK.safetensors.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the recordings; the data's default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random; 0 is a seed.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads that torch computes with.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train a CNN on frames of event recordings, accumulated over random windows."""
    import torch

    from .data import open_dataset
    from .train import TrainSettings, accuracy, train
    from .weights import save_weights
    from .zoo import load_network

    target = out or Path(f"{Path(network.partition(':')[0]).stem}.safetensors")
    settings = TrainSettings(seed=seed) if epochs is None else TrainSettings(seed=seed, epochs=epochs)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    entry = load_network(network)
    say(f"Reading {data} ...")
    recordings = open_dataset(data, split="train", size=_edge(entry.input_shape))
    held_out = open_dataset(data, split="test", size=_edge(entry.input_shape))
    if dry_run:
        emit(
            {"network": network, "n_train": len(recordings.labels), "n_test": len(held_out.labels)}, (), as_json=as_json
        )
        return
    result = train(entry.module, recordings, settings=settings)
    right = accuracy(entry.module, held_out)
    save_weights(entry.module, target)
    summary = {
        "weights": str(target),
        "n_train": len(recordings.labels),
        "n_test": len(held_out.labels),
        "test_accuracy": right,
        "training": dataclasses.asdict(result),
    }
    row = (len(recordings.labels), len(held_out.labels), f"{right:.1%}", result.best_epoch, result.wall_s)
    columns = ("Trained on", "Tested on", "Test accuracy", "Best epoch", "Seconds")
    emit(summary, [table(f"{network} on {data}", columns, [row])], as_json=as_json)
    say(f"Wrote {target}.")
    hint(f"spikeport convert {network} --weights {target} --data {data} --out net.safetensors")


def _edge(input_shape: tuple[int, int, int] | None) -> int | None:
    return None if input_shape is None else input_shape[1]
