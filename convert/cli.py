"""The commands of conversion: ``convert`` and ``estimate``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeport.models.atomic import check_target
from spikeport.models.console import emit, end_dry_run, hint, say
from spikeport.models.zoo import load_network

from .errors import CalibrationError, InputError
from .published import PROFILES
from .tables import conversion_tables, power_tables, synop_tables, tutorial_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .geometry import Shape3

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")]

_MAX_FRAMES = 512
_MAX_INPUTS = 2**26


def convert_command(
    context: typer.Context,
    network: Annotated[str, typer.Argument(help="A name (digits, gesture, ...) or my_net.py:function.")],
    weights: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Its weights: .safetensors, .npz or .pt (weights only).")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The spiking net to write.")] = Path("net.safetensors"),
    input_shape: Annotated[str | None, typer.Option(help="channels,height,width; known for names.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Calibration: digits, nmnist:FOLDER, gestures:FOLDER, a recording, or an .npz with 'frames'."
        ),
    ] = None,
    percentile: Annotated[float, typer.Option(help="Percentile of the activations that is scaled.")] = 99.9,
    spikes: Annotated[float, typer.Option(help="Spikes that this percentile becomes, per frame.")] = 20.0,
    steps: Annotated[int, typer.Option(help="Time steps (leak ticks) a frame lasts; biases are spread over them.")] = 1,
    v_min: Annotated[str, typer.Option(help="Lower bound of the potential in thresholds, or 'none'.")] = "-1.0",
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Convert a plain CNN to a spiking net, with one finding per layer."""
    from spikeport.models.weights import load_weights

    from .normalize import Scaling
    from .pipeline import convert
    from .store import net_bytes, net_hash, save_net

    inputs = (weights, Path(network.rpartition(":")[0] or network), data and Path(data))
    check_target(out, suffixes=(".safetensors",), inputs=[Path(one) for one in inputs if one])
    scaling, bound = Scaling(percentile, spikes, steps), _bound(v_min)
    if data is None and scaling != Scaling():
        say("Without --data nothing is scaled: --percentile, --spikes and --steps have no effect.")
    with contextlib.redirect_stdout(sys.stderr):  # what the user's own file prints is no part of the result
        entry = load_network(network)
        shape = _shape(input_shape) if input_shape else entry.input_shape
        if shape is None:
            raise InputError(f"network '{network}': expected --input-shape channels,height,width, found none.")
        if weights is not None:
            load_weights(entry.module, weights)
        frames = None if data is None else _calibration(data, shape)
        conversion = convert(entry.module, shape, data=frames, scaling=scaling, v_min=bound)
    notes = {
        "network": Path(network.partition(":")[0]).name,
        "data": None if data is None else data.partition(":")[0],
        "scaling": None if data is None else dataclasses.asdict(scaling),
        "findings": [dataclasses.asdict(finding) for finding in conversion.findings],
        "gate": dataclasses.asdict(conversion.gate),
        "classes": list(entry.classes),
    }
    net_bytes(conversion.net, notes)
    if not dry_run:
        save_net(conversion.net, out, notes=notes)
    result = {
        "net": None if dry_run else str(out),
        "sha256": net_hash(conversion.net),
        "n_layers": len(conversion.net.layers),
        "input_shape": list(conversion.net.input_shape),
        "gate": notes["gate"],
        "findings": notes["findings"],
    }
    emit(result, conversion_tables(conversion, is_untrained=weights is None), as_json=as_json)
    if dry_run:
        end_dry_run(context)
        return
    say(f"Wrote {out}.")
    hint(shlex.join(["spikeport", "plan", str(out)]))


def estimate_command(
    net: Annotated[Path, typer.Argument(dir_okay=False, help="A spiking net from `spikeport convert`.")],
    recording: Annotated[Path, typer.Option("--input", "-i", help="A recording: .bs2, .bin, .npz, .npy.")],
    dt_ms: Annotated[float, typer.Option(help="Time step of the simulation, in ms.")] = 10.0,
    profile: Annotated[str, typer.Option(help=f"Power profile: {', '.join(PROFILES)}, or a .json file.")] = "speck2f",
    slow_clock_hz: Annotated[float, typer.Option(help="Leak ticks per second, for the power of biases.")] = 0.0,
    tutorial: Annotated[bool, typer.Option("--tutorial", help="Add the table of the CNN-to-Speck tutorial.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Count synaptic operations exactly, and estimate power with its band and sources."""
    from spikeport.models.files import read_events

    from .power import estimate_power
    from .simulate import simulate_events
    from .store import load_net
    from .synops import count_synops
    from .tutorial import tutorial_table

    if not 0.001 <= dt_ms <= 1e6:
        raise InputError(f"--dt-ms: expected 0.001 to 1000000 ms, found {dt_ms}. Try 10.")
    if recording.is_dir():
        raise InputError(f"--input {recording}: expected one recording, found a folder. Try to name one file in it.")
    spiking = load_net(net)
    trace = simulate_events(spiking, read_events(recording), dt_us=round(dt_ms * 1000))
    report = count_synops(spiking, trace)
    power = estimate_power(report, profile, slow_clock_hz=slow_clock_hz)
    legacy = tutorial_table(spiking, trace) if tutorial else None
    result: dict[str, Any] = {"synops": report.to_dict(), "power": power.to_dict()}
    if legacy:
        result["tutorial"] = legacy.to_dict()
    has_bias = any(layer.bias is not None and layer.bias.any() for layer in spiking.layers)
    synops = synop_tables(report, how="exact for this simulation" if has_bias else "exact")
    emit(result, [*synops, *power_tables(power), *(tutorial_tables(legacy) if legacy else ())], as_json=as_json)
    if has_bias:
        say(
            f"Biases were added {trace.n_steps} times, once per step of {dt_ms:g} ms; on the chip they are added at "
            "the rate of its slow clock, so the count there is another."
        )
    hint(shlex.join(["spikeport", "deploy", str(net), "--out", "program.safetensors"]))


def _bound(text: str) -> float | None:
    if text.strip().lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--v-min: expected a number of 0 or less, or 'none', found '{text}'. Try -1.") from None


def _shape(text: str) -> Shape3:
    parts = text.replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and 0 < len(part.strip()) <= 9 for part in parts):
        raise InputError(f"--input-shape: expected three positive numbers such as 2,34,34, found '{text:.60}'.")
    shape = int(parts[0]), int(parts[1]), int(parts[2])
    if not 0 < math.prod(shape) <= _MAX_INPUTS:
        raise InputError(f"--input-shape: expected 1 to {_MAX_INPUTS} inputs, found '{text}'. Try 2,34,34.")
    return shape


def _calibration(data: str, shape: Shape3) -> NDArray[Any]:
    """Return calibration frames: of an .npz with 'frames', or of recordings summed over their whole length."""
    import numpy as np

    from spikeport.models.data import digits, frames_of, open_dataset

    if data.endswith(".npz"):
        from spikeport.models.files import read_frames

        frames = read_frames(data)
        if frames is not None:
            return frames
    if data == "digits":  # no more of them are simulated than are used
        recordings = digits("train", n=_MAX_FRAMES, size=shape[1]).recordings
    else:
        recordings = open_dataset(data, split="train", size=shape[1]).recordings[:_MAX_FRAMES]
    sizes = {recording.sensor_size for recording in recordings}
    if sizes != {shape[1:]}:
        raise CalibrationError(
            f"calibration data '{data}': expected a sensor of {shape[1]}x{shape[2]} as the CNN's input, found "
            f"{', '.join('x'.join(map(str, size)) for size in sorted(sizes))}. "
            "Try data of the sensor that it was trained on."
        )
    return np.asarray(frames_of(recordings, merge_polarity=shape[0] == 1))
