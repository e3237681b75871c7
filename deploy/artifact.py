"""Program to one file and back: tensors ``core<id>/weight, bias, initial_state``, the rest JSON in its header."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeport.convert.geometry import Pair, Shape3
from spikeport.models.atomic import write_atomic
from spikeport.models.errors import TensorFileError
from spikeport.models.tensorfile import pack, unpack

from .chips import chip
from .errors import ChipNameError, InvalidProgramError, ProgramFileError
from .rules import check_program
from .types import CoreProgram, Destination, DvsConfig, Program, ReadoutConfig
from .vectors import golden_tensors, read_golden

FORMAT = 2
"""Version of the file, raised with every change that an older reader would not understand.

2 added golden vectors, the slow clock, the readout block and more stages of the input; all may be absent, so files of
version 1 are read as they are.
"""

MAX_HEADER_BYTES = 1 << 20
"""Size above which the header of a file is refused unread: JSON becomes many times larger in memory."""

MAX_BYTES = 1 << 24
"""Size above which a file is refused unread; the program that fills every memory of a chip is under 1 MB, and each of
its golden vectors too."""

_TENSORS: dict[str, np.dtype[Any]] = {
    "weight": np.dtype(np.int8),
    "initial_state": np.dtype(np.int16),
    "bias": np.dtype(np.int16),
}
_CORE = {"core", "name", "threshold_high", "threshold_low", "reset", "in_shape", "out_shape", "stride", "padding"}
_CORE |= {"destinations", "monitor", "scale", "has_bias"}
_TOP = {"kind", "format", "chip", "cores", "entry", "dvs", "provenance"}


def program_bytes(program: Program) -> bytes:
    """Return the bytes of the file of ``program``.

    Law: equal programs (with equal provenance) give equal bytes, whatever the machine, folder or time.
    Raises: InvalidProgramError where a field holds something that JSON does not give back as it was.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for core in program.cores:
        for name in _TENSORS:
            tensor = getattr(core, name)
            if tensor is not None:
                tensors[f"core{core.core}/{name}"] = tensor
    golden, vectors = golden_tensors(program)
    header: dict[str, Any] = {
        "chip": program.chip,
        "cores": [_describe(core) for core in program.cores],
        "entry": list(program.entry),
        "dvs": _describe_dvs(program.dvs),
        "provenance": dict(program.provenance),
    }
    if program.slow_clock_hz is not None:
        header["slow_clock_hz"] = program.slow_clock_hz
    if program.readout is not None:
        header["readout"] = {"spacing": program.readout.spacing}
    if vectors:
        header["golden"] = vectors
    for field, value in header.items():
        if not _is_json(value):
            raise InvalidProgramError(
                f"{field}: expected plain JSON values (text keys, lists, finite numbers), found {value!r:.200}. "
                "Try int(), float(), str() and list() on what goes in."
            )
    data = pack(tensors | golden, header, kind="program", version=FORMAT)
    n_header = int.from_bytes(data[:8], "little")
    if n_header > MAX_HEADER_BYTES:
        raise InvalidProgramError(
            f"header: expected at most {MAX_HEADER_BYTES} bytes, found {n_header}. Try a shorter provenance."
        )
    return data


def program_hash(program: Program) -> str:
    """Return the SHA-256 of the bytes of the file of ``program``, in hexadecimal."""
    return hashlib.sha256(program_bytes(program)).hexdigest()


def save_program(program: Program, path: str | Path) -> None:
    """Write ``program`` to one file, whole or not at all.

    Law: ``load_program(path).same(program)``, and the provenance is equal.
    Raises: as ``checked_bytes``; OSError where the file cannot be written.
    """
    write_atomic(path, checked_bytes(program))


def checked_bytes(program: Program) -> bytes:
    """Return the bytes of the file of ``program``, once everything has been checked that ``load_program`` asks for.

    Raises: InvalidProgramError where the program breaks the rules of its chip or its file would be too large,
    ChipNameError where there is no such chip.
    """
    broken = _broken_rules(program)
    if broken:
        raise InvalidProgramError(broken)
    data = program_bytes(program)
    if len(data) > MAX_BYTES:
        raise InvalidProgramError(
            f"program: expected a file of at most {MAX_BYTES} bytes, found {len(data)}. Try fewer golden vectors."
        )
    return data


def load_program(path: str | Path) -> Program:
    """Return the program in the file at ``path``.

    Raises: ProgramFileError where the file is missing, foreign, damaged, of another version, or holds a program that
    breaks the integer specification or the rules of its chip.
    """
    file = Path(path)
    try:
        _check_sizes(file)
        header, tensors = unpack(file, kind="program", versions=(1, FORMAT))
    except (TensorFileError, OSError, ValueError) as cause:
        text = str(cause) if isinstance(cause, TensorFileError) else f"{file.name}: cannot be read: {cause}."
        raise ProgramFileError(text) from cause
    try:
        program = _program(header, tensors)
        broken = _broken_rules(program)
    except ChipNameError as cause:
        raise ProgramFileError(f"{file.name}: {cause}") from cause
    except ValueError as cause:  # InvalidProgramError among them
        raise ProgramFileError(f"{file.name}: {str(cause).rstrip('.')}. Try `spikeport deploy` again.") from cause
    if broken:
        raise ProgramFileError(f"{file.name}: {broken}")
    return program


def _check_sizes(file: Path) -> None:
    if not file.is_file():
        return  # what is there instead is said where it is read
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise TensorFileError(f"{file.name}: expected at most {MAX_BYTES} bytes, found {size}. Try another file.")
    with file.open("rb") as stream:
        n_header = int.from_bytes(stream.read(8), "little")
    if size > MAX_HEADER_BYTES and MAX_HEADER_BYTES < n_header < size:
        raise TensorFileError(
            f"{file.name}: expected a header of at most {MAX_HEADER_BYTES} bytes, found {n_header}. Try another file."
        )


def _describe(core: CoreProgram) -> dict[str, Any]:
    fields = {name: getattr(core, name) for name in _CORE - {"has_bias", "destinations"}}
    for name in ("in_shape", "out_shape", "stride", "padding"):
        fields[name] = list(fields[name])
    routes = [{"core": to.core, "pool": to.pool, "feature_shift": to.feature_shift} for to in core.destinations]
    return {**fields, "has_bias": core.bias is not None, "destinations": routes}


def _describe_dvs(dvs: DvsConfig) -> dict[str, Any]:
    """Return the input stage; what it leaves as it is stays out, as in files of before there was more to it."""
    fields: dict[str, Any] = {"input_shape": list(dvs.input_shape), "merge": dvs.merge, "pool": list(dvs.pool)}
    if dvs.crop is not None:
        fields["crop"] = [*dvs.crop[0], *dvs.crop[1]]
    if any(dvs.mirror):
        fields["mirror"] = list(dvs.mirror)
    if dvs.swap:
        fields["swap"] = True
    return fields


def _broken_rules(program: Program) -> str:
    return " ".join(violation.message for violation in check_program(program, chip(program.chip)))


def _is_json(value: object) -> bool:
    """Return whether a value comes back from JSON as it is."""
    try:
        return _alike(json.loads(json.dumps(value, allow_nan=False, ensure_ascii=False).encode()), value)
    except (TypeError, ValueError, RecursionError):
        return False


def _alike(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    return type(a) is type(b) and a == b


def _program(header: Mapping[str, Any], tensors: dict[str, NDArray[Any]]) -> Program:
    _check_fields(header, _TOP, "header", optional={"slow_clock_hz", "readout", "golden"})
    if not isinstance(header["chip"], str):
        raise ValueError(f"chip: expected a name, found {header['chip']!r:.60}")
    chip(header["chip"])
    entries, entry, provenance = header["cores"], header["entry"], header["provenance"]
    if not isinstance(entries, list) or not isinstance(entry, list) or not isinstance(provenance, dict):
        raise ValueError("cores, entry, provenance: expected a list, a list and an object")
    if not _is_json(provenance):
        raise ValueError("provenance: expected finite numbers and valid text")
    cores = tuple(_core(index, description, tensors) for index, description in enumerate(entries))
    program = Program(
        chip=header["chip"],
        cores=cores,
        entry=tuple(_int(core, "entry") for core in entry),
        dvs=_dvs(header["dvs"]),
        provenance=provenance,
        slow_clock_hz=header.get("slow_clock_hz"),
        readout=_readout(header["readout"]) if "readout" in header else None,
    )
    golden = read_golden(header.get("golden", []), tensors, cores, program.dvs.input_shape)
    if tensors:
        raise ValueError(f"tensors: expected those of the cores only, found also {', '.join(sorted(tensors)):.200}")
    return dataclasses.replace(program, golden=golden)


def _dvs(entry: Any) -> DvsConfig:
    _check_fields(entry, {"input_shape", "merge", "pool"}, "dvs", optional={"crop", "mirror", "swap"})
    top, bottom, left, right = _ints(entry, "crop", 4) if "crop" in entry else (0, 0, 0, 0)
    mirror = _list(entry, "mirror") if "mirror" in entry else [False, False]
    if len(mirror) != 2 or not all(isinstance(axis, bool) for axis in mirror):
        raise ValueError(f"mirror: expected two of true or false, found {mirror!r:.60}")
    return DvsConfig(
        _triple(entry, "input_shape"),
        merge=_bool(entry, "merge"),
        pool=_pair(entry, "pool"),
        crop=((top, bottom), (left, right)) if "crop" in entry else None,
        mirror=(mirror[0], mirror[1]),
        swap="swap" in entry and _bool(entry, "swap"),
    )


def _readout(entry: Any) -> ReadoutConfig:
    _check_fields(entry, {"spacing"}, "readout")
    return ReadoutConfig(_int(entry["spacing"], "spacing"))


def _core(index: int, entry: Any, tensors: dict[str, NDArray[Any]]) -> CoreProgram:
    _check_fields(entry, _CORE, f"cores[{index}]")
    core, has_bias, name, scale = _int(entry["core"], "core"), _bool(entry, "has_bias"), entry["name"], entry["scale"]
    if not isinstance(name, str) or not name.isprintable():
        raise ValueError(f"cores[{index}]: name: expected text, found {name!r:.60}")
    if type(scale) not in (int, float) or not 0 < scale <= sys.float_info.max:
        raise ValueError(f"cores[{index}]: scale: expected a positive number, found {scale!r:.60}")
    wanted = [key for key in _TENSORS if key != "bias" or has_bias]
    parts = {key: _tensor(f"core{core}/{key}", _TENSORS[key], tensors) for key in wanted}
    return CoreProgram(
        core=core,
        name=name,
        weight=parts["weight"],
        bias=parts.get("bias"),
        threshold_high=_int(entry["threshold_high"], "threshold_high"),
        threshold_low=_int(entry["threshold_low"], "threshold_low"),
        reset=entry["reset"],
        initial_state=parts["initial_state"],
        in_shape=_triple(entry, "in_shape"),
        out_shape=_triple(entry, "out_shape"),
        stride=_pair(entry, "stride"),
        padding=_pair(entry, "padding"),
        destinations=tuple(_destination(route) for route in _list(entry, "destinations")),
        monitor=_bool(entry, "monitor"),
        scale=scale,
    )


def _tensor(name: str, dtype: np.dtype[Any], tensors: dict[str, NDArray[Any]]) -> NDArray[Any]:
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise ValueError(f"{name}: expected a tensor, found none")
    if tensor.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype}, found {tensor.dtype}")
    return tensor


def _destination(route: Any) -> Destination:
    _check_fields(route, {"core", "pool", "feature_shift"}, "destination")
    core = None if route["core"] is None else _int(route["core"], "destination")
    return Destination(core, _int(route["pool"], "pool"), _int(route["feature_shift"], "feature_shift"))


def _check_fields(entry: Any, expected: set[str], where: str, *, optional: Set[str] = frozenset()) -> None:
    if not isinstance(entry, dict) or set(entry) - optional != expected:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f"{where}: expected the fields {sorted(expected)}, found {found!s:.300}")


def _int(value: Any, where: str) -> int:
    if type(value) is not int:
        raise ValueError(f"{where}: expected a whole number, found {value!r:.60}")
    return value


def _bool(entry: Mapping[str, Any], field: str) -> bool:
    value = entry[field]
    if not isinstance(value, bool):
        raise ValueError(f"{field}: expected true or false, found {value!r:.60}")
    return value


def _list(entry: Mapping[str, Any], field: str) -> list[Any]:
    value = entry[field]
    if not isinstance(value, list):
        raise ValueError(f"{field}: expected a list, found {value!r:.60}")
    return value


def _ints(entry: Mapping[str, Any], field: str, length: int) -> list[int]:
    values = _list(entry, field)
    if len(values) != length:
        raise ValueError(f"{field}: expected {length} whole numbers, found {values!r:.60}")
    return [_int(value, field) for value in values]


def _pair(entry: Mapping[str, Any], field: str) -> Pair:
    y, x = _ints(entry, field, 2)
    return y, x


def _triple(entry: Mapping[str, Any], field: str) -> Shape3:
    channels, height, width = _ints(entry, field, 3)
    return channels, height, width
