"""The commands ``evaluate`` and ``predict``."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spikeport.convert.cli import JsonFlag
from spikeport.models.atomic import check_target
from spikeport.models.console import emit, hint, say, table

from .options import SlowClock, check_rate

if TYPE_CHECKING:
    from spikeport.models.predictor import Predictor
    from spikeport.models.results import Evaluation

What = Annotated[
    str, typer.Argument(help="A chip program or spiking net (.safetensors), or a network as `convert` takes it.")
]
Weights = Annotated[Path | None, typer.Option(dir_okay=False, help="Weights of a network.")]
InputShape = Annotated[str | None, typer.Option(help="channels,height,width of a network of your own.")]
StepUs = Annotated[
    int | None, typer.Option(min=1, help="Length of a time step in microseconds; a CNN has one frame without.")
]
ReadoutName = Annotated[
    str | None,
    typer.Option(help="spike_count, first_spike, last, sum, mean, maximum, exponential_mean, leaky or delayed."),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Where a program runs: the emulator, a board, or virtual:speck2fdevkit.")
]


def evaluate_command(
    what: What,
    data: Annotated[
        str, typer.Option(help="digits, nmnist:FOLDER, gestures:FOLDER, poker:FOLDER, images:FOLDER.")
    ] = "digits",
    split: Annotated[Literal["train", "test"], typer.Option(help="Part of the data.")] = "test",
    n: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many samples.")] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="With commas: accuracy, top_3, confusion_matrix, mean_square_error, latency, spikes, synops, energy."
        ),
    ] = "accuracy",
    readout: ReadoutName = None,
    weights: Weights = None,
    input_shape: InputShape = None,
    step_us: StepUs = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each sample; as long as it is without.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples side by side; changes no answer.")] = 16,
    device: DeviceOption = None,
    slow_clock_hz: SlowClock = None,
    shards: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for finished shards: the same command goes on there.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a program, a spiking net or a CNN on labelled data; under torchrun on several processes."""
    from spikeport.models.batches import InferenceSettings
    from spikeport.models.callbacks import Checkpoint
    from spikeport.models.distributed import join_world, leave_world, quiet_ranks
    from spikeport.models.infer import evaluate
    from spikeport.models.labelled import open_labelled
    from spikeport.models.results import rates

    settings = InferenceSettings(n_steps=steps, batch_size=batch_size, readout=readout)
    with contextlib.ExitStack() as stack:
        stack.callback(leave_world)
        stack.enter_context(quiet_ranks())
        world = join_world()
        is_first = world is None or world.rank == 0
        options = (weights, input_shape, step_us, slow_clock_hz)
        predictor = stack.enter_context(opened(what, options, device))
        if is_first:
            say(f"Reading {data} ...")
        edge = predictor.input_shape[1] if len(predictor.input_shape) == 3 else None
        samples = open_labelled(data, split=split, size=edge, n=n)
        # Small enough that every process gets several, so that a slow one delays the end by little.
        n_ranks = world.size if world else 1
        shard = max(1, min(1000, len(samples) // (8 * n_ranks)))
        found = evaluate(
            predictor,
            samples,
            metrics=tuple(name.strip() for name in metrics.split(",")),
            callbacks=[] if shards is None else [Checkpoint(shards, shard)],
            settings=settings,
        )
        result = {"what": what, "data": data, "predictor": predictor.name, **found.to_dict(), **rates(found)}
        emit(result, _evaluation_tables(found, f"{what} on {data}"), as_json=as_json)
    if is_first and found.n_resumed:
        say(f"{found.n_resumed} of {found.n_samples} samples were finished before.")


def predict_command(
    what: What,
    recording: Annotated[Path, typer.Option("--input", "-i", help="A recording, or a folder of recordings.")],
    readout: ReadoutName = None,
    weights: Weights = None,
    input_shape: InputShape = None,
    step_us: StepUs = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each sample; as long as it is without.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Recordings side by side; changes no answer.")] = 16,
    device: DeviceOption = None,
    slow_clock_hz: SlowClock = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write outputs and classes: .npz or .h5.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell the class of each recording, with the confidence in it."""
    from spikeport.models.batches import InferenceSettings
    from spikeport.models.errors import InferenceError
    from spikeport.models.files import read_events, recordings_at
    from spikeport.models.infer import predict
    from spikeport.models.predictor import MAIN, shares
    from spikeport.models.serializers import save_arrays

    files = recordings_at(recording) if recording.is_dir() else (recording,)
    if out is not None:
        check_target(out, suffixes=(".npz", ".h5"), inputs=files)
    if not files:
        raise InferenceError(f"folder '{recording.name}': expected recordings, found none. Try another folder.")
    with opened(what, (weights, input_shape, step_us, slow_clock_hz), device) as predictor:
        settings = InferenceSettings(n_steps=steps, batch_size=batch_size, readout=readout)
        found = predict(predictor, [read_events(file) for file in files], settings=settings)
        name = MAIN if MAIN in found.outputs else next(iter(found.outputs))
        values = found.outputs[name].reshape(len(files), -1)
        confidence = shares(values, predictor.confidence)
        names = predictor.classes
    rows = [
        {
            "recording": file.name,
            "class": winner,
            "class_name": names[winner] if winner < len(names) else str(winner),
            "confidence": float(confidence[row, winner]),
            "outputs": [_finite(value) for value in values[row].tolist()],
        }
        for row, (file, winner) in enumerate(zip(files, found.classes[name].tolist(), strict=True))
    ]
    if out is not None:
        save_arrays(
            out,
            {
                **{("outputs", key): array for key, array in found.outputs.items()},
                **{("classes", key): array for key, array in found.classes.items()},
            },
        )
    shown = [(row["recording"], row["class_name"], row["confidence"]) for row in rows]
    columns = ("Recording", "Class", "Confidence")
    emit({"what": what, "recordings": rows}, [table(f"{what}", columns, shown)], as_json=as_json)
    if out is not None:
        say(f"Wrote {out}.")
    hint(shlex.join(["spikeport", "stream", what, "--input", str(files[0])]))


@contextlib.contextmanager
def opened(
    what: str, options: tuple[Path | None, str | None, int | None, float | None], device: str | None
) -> Iterator[Predictor]:
    """Yield the predictor of a command's options; a device is open meanwhile."""
    from spikeport.convert.inputs import parse_shape

    from .device import EMULATOR, open_device
    from .opening import OpenOptions, open_predictor

    weights, input_shape, step_us, slow_clock_hz = options
    asked = OpenOptions(
        weights=weights,
        input_shape=None if input_shape is None else parse_shape(input_shape),
        step_us=step_us,
        slow_clock_hz=check_rate(slow_clock_hz),
    )
    if weights is None and Path(what).suffix.lower() not in (".safetensors", ".pt2"):
        say("No --weights were given: this network is untrained.")
    if device is None or device == EMULATOR:
        yield open_predictor(what, options=asked)
        return
    with open_device(device) as board:
        yield open_predictor(what, options=asked, device=board)


def _evaluation_tables(found: Evaluation, title: str) -> list[object]:
    shown: list[object] = []
    rows: list[tuple[object, ...]] = []
    for output, results in found.results.items():
        where = f"{output}: " if len(found.results) > 1 else ""
        for metric, result in results.items():
            if metric == "confusion_matrix" and result:
                columns = ("Label", *map(str, range(len(result))))
                shown.append(table(f"{where}Decided", columns, [(str(i), *row) for i, row in enumerate(result)]))
            else:
                rows += [(f"{where}{name}", value) for name, value in _flat(metric, result)]
    rates_line = (
        f"{found.n_samples:,} samples, {found.n_steps:,} steps and {found.n_events:,} events in {found.wall_s:.3g} s"
        f" on {found.n_ranks} process{'es' * (found.n_ranks > 1)}; the first batch took {found.first_s:.3g} s"
    )
    return [table(title, ("Metric", "Value"), rows), *shown, rates_line]


def _flat(name: str, result: Any) -> Sequence[tuple[str, object]]:
    if isinstance(result, Mapping):
        return [row for key, value in result.items() for row in _flat(f"{name} {key}", value)]
    return [(name, "none" if result is None else result)]


def _finite(value: float) -> float | None:
    """Return a number that JSON has, None for an infinite one."""
    return value if abs(value) < float("inf") else None
