"""The command ``finetune``."""

from __future__ import annotations

import dataclasses
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeport.models.atomic import check_target
from spikeport.models.cli import MAX_SEED, MAX_THREADS
from spikeport.models.console import emit, end_dry_run, hint, say, table

from .errors import InputError

if TYPE_CHECKING:
    from .finetune import Epoch, Finetuned


def finetune_command(
    context: typer.Context,
    net: Annotated[Path, typer.Argument(dir_okay=False, help="A spiking net from `spikeport convert`.")],
    data: Annotated[str, typer.Option(help="Labelled recordings: digits, nmnist:FOLDER or gestures:FOLDER.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The fine-tuned net to write.")] = Path(
        "finetuned.safetensors"
    ),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the recordings.")] = 60,
    synops: Annotated[
        float | None, typer.Option(help="Most synops a recording may cost: up to 1 a share of today's, else a number.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="In standard deviations of each layer's weights.")] = 0.03,
    dt_ms: Annotated[float, typer.Option(help="Time step of the training, in ms.")] = 50.0,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="That of `spikeport train` holds out the same recordings.")
    ] = 0,
    threads: Annotated[
        int, typer.Option(min=1, max=MAX_THREADS, help="Threads of torch; one makes runs repeatable to the byte.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train a spiking net through time on the chip's integers; the best of the last epochs is kept."""
    import torch

    from spikeport.models.data import open_dataset

    from .finetune import FinetuneSettings, check_labels, finetune
    from .samples import collect
    from .store import load_net_with_notes, net_hash, save_net

    check_target(out, suffixes=(".safetensors",), inputs=[net, Path(data)])
    if not 0.001 <= dt_ms <= 1e6:
        raise InputError(f"--dt-ms: expected 0.001 to 1000000 ms, found {dt_ms}. Try 50.")
    settings = FinetuneSettings(
        epochs=epochs, learning_rate=learning_rate, synop_target=synops, dt_us=round(dt_ms * 1000), seed=seed
    )
    spiking, notes = load_net_with_notes(net)
    say(f"Reading {data} ...")
    recordings = open_dataset(data, split="train", size=spiking.input_shape[1])
    torch.set_num_threads(threads)
    if dry_run:
        samples = collect(spiking, recordings.recordings, dt_us=settings.dt_us)
        check_labels(spiking, recordings.labels, len(samples))
        counts = {"n_recordings": len(samples), "n_steps": samples.n_steps}
        shown = f"{net} on {data}: {len(samples)} recordings of at most {samples.n_steps} steps"
        emit(counts, [shown], as_json=as_json)
        end_dry_run(context)
        return
    found = finetune(spiking, recordings.recordings, recordings.labels, settings=settings)
    result = summary(found)
    save_net(
        found.net, out, notes={**notes, "finetune": {"data": data.partition(":")[0], **dataclasses.asdict(settings)}}
    )
    emit({"net": str(out), "sha256": net_hash(found.net), **result}, finetune_tables(found), as_json=as_json)
    say(f"Wrote {out}.")
    hint(shlex.join(["spikeport", "deploy", str(out), "--out", "program.safetensors"]))


def summary(found: Finetuned) -> dict[str, Any]:
    """Return what happened as plain numbers, ready for JSON."""
    return {
        "start": _row(found.start),
        "history": [_row(epoch) for epoch in found.history],
        "best_epoch": found.best_epoch,
        "synop_target": found.synop_target,
        "n_train": found.n_train,
        "n_validation": found.n_validation,
        "wall_s": found.wall_s,
    }


def finetune_tables(found: Finetuned) -> list[object]:
    """Return the held-out figures before and after for a terminal."""
    rows = [
        ("before", None, f"{found.start.accuracy:.1%}", round(found.start.synops)),
        (f"epoch {found.best_epoch}, kept", found.best.loss, f"{found.best.accuracy:.1%}", round(found.best.synops)),
    ]
    title = f"Trained on {found.n_train} recordings, held out {found.n_validation}"
    shown: list[object] = [table(title, ("", "Loss", "Held-out accuracy", "Synops a recording"), rows)]
    if found.synop_target is not None:
        shown.append(f"Target: {found.synop_target:,.0f} synops a recording, in the steps of the training")
    return shown


def _row(epoch: Epoch) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in dataclasses.asdict(epoch).items()}
