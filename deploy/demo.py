"""The whole path in one command: digits, training, conversion, placement, emulation, report."""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeport.convert.cli import JsonFlag
from spikeport.models.atomic import check_target
from spikeport.models.cli import MAX_SEED, MAX_THREADS
from spikeport.models.console import emit, hint, say, table
from spikeport.models.errors import TargetError

if TYPE_CHECKING:
    from torch import nn

    from spikeport.convert.types import Conversion
    from spikeport.models.data import EventDataset

    from .compare import Comparison
    from .plan import Plan
    from .types import Program

CHIP = "speck2fdevkit"
_N_CALIBRATION = 512
_N_SHOWN = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Demo:
    """What the demo made, step by step."""

    module: nn.Module
    conversion: Conversion
    plan: Plan
    program: Program
    comparison: Comparison
    seconds: dict[str, float]


def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that is written.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of everything random; 0 is a seed.")] = 0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the recordings; fewer is faster and worse.")
    ] = None,
    n_train: Annotated[
        int | None, typer.Option(min=1, help="Train on this many digits; all of them by default.")
    ] = None,
    n_test: Annotated[int | None, typer.Option(min=1, help="Test on this many digits; all 500 by default.")] = None,
    threads: Annotated[
        int, typer.Option(min=1, max=MAX_THREADS, help="Threads of torch; one is fastest for networks this small.")
    ] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Train a CNN on digits, convert it, place it on a chip, run it on the emulator, write a report."""
    import torch

    from spikeport.models.data import digits

    torch.set_num_threads(threads)
    _make_folders(out)
    say("Simulating an event camera that looks at real handwritten digits ...")
    started = time.perf_counter()
    train_set, test_set = digits("train", n=n_train, seed=seed), digits("test", n=n_test, seed=seed)
    simulated_s = time.perf_counter() - started
    made = run_demo(train_set, test_set, seed=seed, epochs=epochs)
    made.seconds["simulate recordings"] = simulated_s
    files = write_demo(made, test_set, out, seed=seed)
    emit(_result(made, files), _tables(made), as_json=as_json)
    say(f"Wrote {', '.join(sorted(files.values()))}.")
    say(f"Open {files['report']} in a browser.")
    hint(shlex.join(["spikeport", "run", files["program"], "--input", files["recordings"]]))


def _make_folders(out: Path) -> None:
    """Make the folder and check, before the minutes of training, that all of the demo can be written there."""
    try:
        (out / "recordings").mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise TargetError(f"--out {out}: expected a folder, found a file in its place. Try another name.") from None
    for file in _FILES.values():
        check_target(out / file, suffixes=(Path(file).suffix,))


def run_demo(train_set: EventDataset, test_set: EventDataset, *, seed: int = 0, epochs: int | None = None) -> Demo:
    """Return the trained, converted, placed and emulated digits CNN; ``digits`` of the zoo on ``CHIP``."""
    import torch

    from spikeport.convert.pipeline import convert
    from spikeport.models.data import frames_of
    from spikeport.models.train import TrainSettings, train
    from spikeport.models.zoo import load_network

    from .compare import compare
    from .pipeline import compile_program
    from .plan import plan

    seconds: dict[str, float] = {}
    torch.manual_seed(seed)
    network = load_network("digits")
    say("Training the CNN on windows of the recordings ...")
    settings = TrainSettings(seed=seed) if epochs is None else TrainSettings(seed=seed, epochs=epochs)
    seconds["train"] = train(network.module, train_set, settings=settings).wall_s
    say("Converting, placing and compiling ...")
    started = time.perf_counter()
    frames = frames_of(train_set.recordings[:_N_CALIBRATION], merge_polarity=False)
    conversion = convert(network.module, (2, 34, 34), data=frames)
    provenance = {"network": "digits", "classes": list(network.classes), "seed": seed}
    program = compile_program(conversion.net, CHIP, provenance=provenance)
    planned = plan(conversion.net, CHIP)
    seconds["convert and compile"] = time.perf_counter() - started
    say(f"Running CNN, spiking net and emulated chip on {len(test_set.labels)} held-out digits ...")
    started = time.perf_counter()
    comparison = compare(
        network.module, conversion.net, program=program, recordings=test_set.recordings, labels=test_set.labels
    )
    seconds["compare"] = time.perf_counter() - started
    return Demo(network.module, conversion, planned, program, comparison, seconds)


def write_demo(made: Demo, test_set: EventDataset, out: Path, *, seed: int) -> dict[str, str]:
    """Write weights, net, program, ten recordings and the report into ``out``; return what lies where."""
    from spikeport.convert.power import estimate_power
    from spikeport.convert.store import save_net
    from spikeport.models.files import write_events
    from spikeport.models.weights import save_weights

    from .artifact import program_hash, save_program
    from .emulator import Emulator
    from .page import write_report
    from .report import Report

    paths = {name: out / file for name, file in _FILES.items()}
    folder = out / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(made.module, paths["weights"])
    notes = {
        "network": "digits",
        "classes": list(test_set.classes),
        "seed": seed,
        "findings": [dataclasses.asdict(finding) for finding in made.conversion.findings],
    }
    save_net(made.conversion.net, paths["net"], notes=notes)
    save_program(made.program, paths["program"])
    for index, events in enumerate(test_set.recordings[:_N_SHOWN]):
        write_events(events, folder / f"{index:02d}_is_{test_set.classes[int(test_set.labels[index])]}.npz")
    report = Report(
        title="Digits, from CNN to chip",
        program=made.program,
        command=f"spikeport demo --seed {seed}",
        events=test_set.recordings[0],
        recording=Emulator(made.program).run(test_set.recordings[0], record="all"),
        class_names=test_set.classes,
        label=int(test_set.labels[0]),
        accuracies=made.comparison.accuracies,
        synops=made.comparison.synops,
        power=estimate_power(made.comparison.synops),
        conversion=made.conversion,
        warnings=made.plan.warnings,
        provenance={"recordings": test_set.source, "program_sha256": program_hash(made.program)},
    )
    write_report(report, paths["report"])
    write_report(report, paths["numbers"])
    return {**{name: str(path) for name, path in paths.items()}, "recordings": str(folder)}


_FILES = {
    "weights": "digits-cnn.safetensors",
    "net": "digits-net.safetensors",
    "program": "digits-program.safetensors",
    "report": "report.html",
    "numbers": "report.json",
}


def _result(made: Demo, files: dict[str, str]) -> dict[str, Any]:
    return {
        "accuracies": [
            {"name": one.name, "n_right": one.n_right, "n": one.n, "share": one.share}
            for one in made.comparison.accuracies
        ],
        "synops_per_recording": made.comparison.synops.total / made.comparison.synops.n_samples,
        "layer_order": [core.core for core in made.program.cores],
        "seconds": made.seconds,
        "files": files,
    }


def _tables(made: Demo) -> list[object]:
    rows = []
    for one in made.comparison.accuracies:
        low, high = one.interval
        rows.append((one.name, f"{one.n_right} of {one.n}", f"{one.share:.1%}", f"{low:.1%} to {high:.1%}"))
    synops = made.comparison.synops
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in made.seconds.items())
    return [
        table("Held-out digits", ("", "Right", "Accuracy", "95 % interval"), rows),
        f"{synops.total / synops.n_samples:,.0f} synops a recording on cores "
        f"{', '.join(str(core.core) for core in made.program.cores)} of {made.program.chip}.",
        f"Times: {times}.",
    ]
