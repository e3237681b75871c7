"""The command that writes a spiking net for other frameworks: ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeport.models.atomic import check_target
from spikeport.models.console import emit, end_dry_run, say, table

from .cli import DryRun, JsonFlag


def export_command(
    context: typer.Context,
    net: Annotated[Path, typer.Argument(dir_okay=False, help="A spiking net from `spikeport convert`.")],
    out: Annotated[Path, typer.Argument(help="The NIR file to write, net.nir for example.")],
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a spiking net as NIR, which sinabs, snnTorch, Norse, SpikingJelly and others read."""
    from .exchange.nir_out import nir_bytes, save_nir
    from .store import load_net_with_notes, net_hash

    check_target(out, suffixes=(".nir",), inputs=[net])
    spiking, notes = load_net_with_notes(net)
    n_bytes = len(nir_bytes(spiking, notes))
    if not dry_run:
        save_nir(spiking, out, notes=notes)
    result = {
        "nir": None if dry_run else str(out),
        "sha256": net_hash(spiking),
        "n_bytes": n_bytes,
        "n_layers": len(spiking.layers),
    }
    rows: list[tuple[object, ...]] = [
        (layer.name, "x".join(map(str, layer.out_shape)), layer.threshold, layer.v_min) for layer in spiking.layers
    ]
    layers = table("IF nodes, reset by subtraction", ("Layer", "Neurons", "Threshold", "Lower bound"), rows)
    emit(result, [layers, f"{n_bytes:,} bytes; lower bounds and initial states stand in the metadata"], as_json=as_json)
    if dry_run:
        end_dry_run(context)
        return
    say(f"Wrote {out}.")
