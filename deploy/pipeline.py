"""compile_program() and run(): the visible list of calls from a spiking net to a chip that runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal

from spikeport.convert.store import net_hash
from spikeport.convert.types import SpikingNet
from spikeport.models.events import Events

from .assemble import Monitor, assemble
from .discretize import FittedNet
from .errors import DoesNotFitError
from .golden import add_golden
from .place import LayerOrder, Objective
from .plan import Plan, count, plan
from .types import Program, Recording


def compile_program(
    net: SpikingNet,
    chip: str = "speck2fdevkit",
    *,
    layer_order: LayerOrder = "auto",
    objective: Objective = "reproducible",
    monitor: Monitor = None,
    provenance: Mapping[str, Any] | None = None,
) -> Program:
    """Return the program of a net for a chip.

    ``layer_order`` gives the core of each layer, or 'auto' for the best placement by ``objective``, see ``place``;
    ``monitor`` names the layers whose spikes leave the chip, or is 'all', or None for those of the output, or
    'readout': then none do, and the output layers are widened for the readout block of the chip. Weights are rounded by
    the vendor's formula, those of a ``FittedNet`` by ours, see ``discretize``.
    ``provenance`` is kept in the program beside its version, the options and the hash of the net. Golden vectors come
    with the program; they are made when they are first looked at, as by saving it.
    Law: the same arguments give the same bytes of the file: no path, time or machine is kept; for a ``FittedNet`` on
    one machine with one version of numpy.
    Raises: DoesNotFitError with every violation; ChipNameError, LayerOrderError, MonitorError, SettingError.
    """
    planned = plan(net, chip, layer_order=layer_order, objective=objective, readout=monitor == "readout")
    return build_program(net, planned, layer_order=layer_order, monitor=monitor, provenance=provenance)


def build_program(
    net: SpikingNet,
    planned: Plan,
    *,
    layer_order: LayerOrder = "auto",
    monitor: Monitor = None,
    provenance: Mapping[str, Any] | None = None,
) -> Program:
    """Return the program of a net that has been planned, with ``layer_order`` and, for ``monitor`` 'readout', for that.

    Law: equal to ``compile_program`` with the options of the plan.
    Raises: DoesNotFitError with every violation; MonitorError.
    """
    if not planned.fits:
        raise DoesNotFitError(describe_misfit(planned))
    origin = {
        **(provenance or {}),
        "spikeport": version("spikeport"),
        "net_sha256": net_hash(net),
        "layer_order": layer_order if isinstance(layer_order, str) else list(planned.placement.cores or ()),
        "objective": planned.objective,
        "monitor": monitor if monitor is None or isinstance(monitor, str) else list(monitor),
    }
    if isinstance(net, FittedNet):
        origin["rounding"] = {"fitted": None if net.activity is None else net.activity.sha256()}
    if rewrites := [warning.message for warning in planned.warnings if warning.rule in ("relay", "readout erratum")]:
        origin["rewrites"] = rewrites
    return add_golden(assemble(planned.net, planned.placement, monitor=monitor, provenance=origin))


def run(
    program: Program,
    events: Events,
    device: str = "emulator",
    *,
    record: Literal["all"] | None = None,
    slow_clock_hz: float | None = None,
) -> Recording:
    """Return what a device does with a recording of events.

    Units: ``slow_clock_hz`` is the rate at which biases are added, in hertz; None: the one that the program carries;
    0: no slow clock, biases do nothing.
    Raises: DeviceError for a device that is unknown or absent; RecordingError for events that do not fit the program.
    """
    from .device import open_device

    with open_device(device) as opened:
        opened.load(program, slow_clock_hz=slow_clock_hz)
        return opened.run(events, record)


def describe_misfit(planned: Plan) -> str:
    """Return all violations of a plan as one text, the first with the number of those that follow."""
    first, *rest = (violation.message for violation in planned.violations)
    below = f" {count(rest, 'further problem')} below." if rest else ""
    return "\n".join([f"{first}{below}", *rest])
