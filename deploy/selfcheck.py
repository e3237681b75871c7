"""What a device does where no public text decides, found out by probes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from .behavior import Behavior
from .chips import CHIPS
from .device import VIRTUAL, Device, open_device, parse_device
from .errors import SettingError
from .probes import Probe, make_probes
from .types import Recording


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a device did with one probe: ``variant`` is None where that is no known variant.

    ``specified`` is the variant of the integer specification, ``observed`` what was seen, as text.
    """

    name: str
    question: str
    specified: str
    variant: str | None
    observed: str


@dataclasses.dataclass(frozen=True)
class SelfCheck:
    """The answers of a device."""

    device: str
    answers: tuple[Answer, ...]

    @property
    def ok(self) -> bool:
        """Whether the device keeps the integer specification in everything that was asked."""
        return all(answer.variant == answer.specified for answer in self.answers)

    @property
    def behavior(self) -> Behavior:
        """The variants found; questions that were not asked are None."""
        unknown = dict.fromkeys(field.name for field in dataclasses.fields(Behavior))
        return Behavior(**(unknown | {answer.name: answer.variant for answer in self.answers}))

    def to_dict(self) -> dict[str, Any]:
        """Return the answers as plain JSON values."""
        return {"device": self.device, "ok": self.ok, "answers": [dataclasses.asdict(one) for one in self.answers]}


def selfcheck(
    device: str | Device = "emulator",
    *,
    probes: Sequence[str] | None = None,
    on_answer: Callable[[Answer], None] | None = None,
) -> SelfCheck:
    """Return what a device does with the probes.

    ``device`` is a name to open, or an open device, which stays open; ``probes`` are names of questions, None for all.
    ``on_answer`` is called with each answer as it comes.
    Law: the emulator and a virtual board keep the specification.
    Raises: SettingError for unknown probes; DeviceError.
    """
    name = device if isinstance(device, str) else device.name
    if isinstance(device, str):
        parse_device(device)
    # All chips have one table; the emulator has none of its own.
    named = name.removeprefix(VIRTUAL).partition(":")[0]
    table = next((one for one in CHIPS if one.name == named), CHIPS[-1])
    known = {probe.name: probe for probe in make_probes(table)}
    unknown = [one for one in probes or () if one not in known]
    if unknown:
        raise SettingError(
            f"probes: expected some of {', '.join(known)}, found {', '.join(unknown)}. Try none for all."
        )
    chosen = [probe for probe in known.values() if probes is None or probe.name in probes]
    answers = []

    def ask(opened: Device) -> None:
        for probe in chosen:
            answers.append(_answer(probe, [_play(opened, probe, index) for index in range(len(probe.cases))]))
            if on_answer is not None:
                on_answer(answers[-1])

    if isinstance(device, str):
        with open_device(device) as opened:
            ask(opened)
    else:
        ask(device)
    return SelfCheck(name, tuple(answers))


def _play(device: Device, probe: Probe, index: int) -> Recording:
    case = probe.cases[index]
    device.load(case.program, slow_clock_hz=case.slow_clock_hz)
    return device.run(case.events, "all")


def _answer(probe: Probe, found: Sequence[Recording]) -> Answer:
    observed = probe.observe(found)
    specified = str(getattr(Behavior(), probe.name))
    return Answer(probe.name, probe.question, specified, probe.outcomes.get(observed), f"{observed}"[:400])
