"""The command of networks: ``train``."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from .atomic import check_target
from .console import emit, end_dry_run, hint, say, table
from .digits_cnn import DIGITS
from .errors import DataError
from .zoo import ZOO, load_network

MAX_SEED = 2**31 - 1
MAX_THREADS = 1024
NMNIST_SIZE = (34, 34)


def train_command(
    context: typer.Context,
    network: Annotated[str, typer.Argument(help="digits, digits-merged, digits-64, digits-64-merged, ...")] = "digits",
    data: Annotated[str, typer.Option(help="digits (simulated) or nmnist:FOLDER.")] = "digits",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Weights to write; default NETWORK.safetensors.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the recordings; 60 by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of everything random; 0 is a seed.")] = 0,
    threads: Annotated[
        int, typer.Option(min=1, max=MAX_THREADS, help="Threads of torch; one is fastest for networks this small.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train a CNN on frames of event recordings, accumulated over random windows."""
    import torch

    from .data import open_dataset
    from .train import TrainSettings, accuracy, in_channels, train
    from .weights import save_weights

    target = out or Path(f"{Path(network.partition(':')[0]).stem}.safetensors")
    check_target(target, suffixes=(".safetensors",), inputs=[Path(network.rpartition(":")[0] or network)])
    _check_data(network, data)
    settings = TrainSettings(seed=seed) if epochs is None else TrainSettings(seed=seed, epochs=epochs)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    with contextlib.redirect_stdout(sys.stderr):  # what the user's own file prints is no part of the result
        entry = load_network(network)
    say(f"Reading {data} ...")
    recordings = open_dataset(data, split="train", size=_edge(entry.input_shape))
    held_out = open_dataset(data, split="test", size=_edge(entry.input_shape))
    if dry_run:
        counts = {"network": network, "n_train": len(recordings.labels), "n_test": len(held_out.labels)}
        emit(counts, [f"{network} on {data}: {counts['n_train']} recordings to train on"], as_json=as_json)
        end_dry_run(context)
        return
    with contextlib.redirect_stdout(sys.stderr):
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
    convert = ["spikeport", "convert", network, "--weights", str(target), "--data", data]
    if entry.input_shape is None:
        shape = (in_channels(entry.module), *recordings.recordings[0].sensor_size)
        convert += ["--input-shape", ",".join(map(str, shape))]
    hint(shlex.join([*convert, "--out", "net.safetensors"]))


def _check_data(network: str, data: str) -> None:
    """Check, before anything is simulated, that there is data to train and to test on that suits the network."""
    if data != "digits" and not data.startswith("nmnist:"):
        raise DataError(
            f"data '{data}': expected data with a part to train on and one to test on, digits or nmnist:FOLDER, "
            "found none. Try digits."
        )
    entry = ZOO.get(network)
    if entry is None:
        return
    if entry.classes != DIGITS:
        raise DataError(
            f"network '{network}' on data '{data}': expected {len(DIGITS)} classes, found {len(entry.classes)}. "
            "Try the network digits."
        )
    if data != "digits" and entry.input_shape[1:] != NMNIST_SIZE:
        found, there = ("x".join(map(str, size)) for size in (entry.input_shape[1:], NMNIST_SIZE))
        raise DataError(
            f"network '{network}' on data '{data}': expected a network for {there}, found one for {found}. "
            "Try the network digits."
        )


def _edge(input_shape: tuple[int, ...] | None) -> int | None:
    return None if input_shape is None or len(input_shape) != 3 else input_shape[1]
