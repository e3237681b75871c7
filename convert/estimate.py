"""The command ``estimate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeport.models.console import emit, hint, say

from .cli import JsonFlag
from .errors import InputError
from .published import PROFILES
from .tables import power_tables, synop_tables, tutorial_tables


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
