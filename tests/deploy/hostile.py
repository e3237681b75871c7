"""Files that are no program, or a broken or hostile one: a corpus made by code, each with what its refusal says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from spikeport.deploy.artifact import MAX_BYTES, MAX_HEADER_BYTES, program_bytes
from spikeport.deploy.types import Program
from spikeport.deploy.vectors import MAX_GOLDEN, MAX_GOLDEN_SPIKES

KEY = "spikeport"
DTYPES = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "U16": np.uint16}

Header = dict[str, Any]
Tensors = dict[str, NDArray[Any]]
Change = Callable[[Header, Tensors], None]


@dataclasses.dataclass(frozen=True)
class Hostile:
    """A file's content, and a regular expression that the refusal matches."""

    name: str
    content: bytes
    text: str


def parts(program: Program) -> tuple[Header, Tensors]:
    """Return the header and the tensors of a program's file, both free to change."""
    index, data = _index(program_bytes(program))
    header = json.loads(index.pop("__metadata__")[KEY])
    tensors: Tensors = {}
    for name, entry in index.items():
        start, stop = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[start:stop], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return header, tensors


def packed(header: Header, tensors: Tensors) -> bytes:
    """Return a file of a header and tensors, whatever they hold."""
    return save({name: np.array(one, order="C") for name, one in tensors.items()}, metadata={KEY: json.dumps(header)})


def corpus(program: Program) -> Iterator[Hostile]:
    """Yield the files, made from the file of a program with golden vectors."""
    data = program_bytes(program)
    yield from _foreign()
    yield from _truncated(data)
    yield from _framed(data)
    yield from _broken(program)


def _foreign() -> Iterator[Hostile]:
    damaged = "damaged or foreign"
    yield Hostile("empty", b"", damaged)
    yield Hostile("one byte", b"\x00", damaged)
    yield Hostile("text", b"hello, world", damaged)
    yield Hostile("zip", b"PK\x03\x04" + bytes(1000), damaged)
    yield Hostile("pickle", b"\x80\x04\x95" + bytes(1000), damaged)
    yield Hostile("zeros", bytes(1 << 20), damaged)
    yield Hostile("ones", b"\xff" * (1 << 20), damaged)
    yield Hostile("larger than any program", bytes(MAX_BYTES + 1), f"at most {MAX_BYTES} bytes")
    yield Hostile("plain safetensors", save({"weight": np.zeros(3)}), "without its header")
    yield Hostile("metadata of others", save({"weight": np.zeros(3)}, metadata={"format": "pt"}), "without its header")
    yield Hostile("header of another kind", packed({"kind": "report", "format": 1}, {}), "found a report")


def _truncated(data: bytes) -> Iterator[Hostile]:
    n_header = int.from_bytes(data[:8], "little")
    index, _ = _index(data)
    ends = {"length": 4, "header": 8 + n_header // 2, "header end": 8 + n_header}
    tensors = {name: entry["data_offsets"] for name, entry in index.items() if name != "__metadata__"}
    for name, (start, stop) in sorted(tensors.items(), key=lambda item: item[1]):
        section = name.split("/")[0]
        ends[f"{section}, {name}"] = 8 + n_header + (start + stop) // 2
    for where, end in ends.items():
        yield Hostile(f"truncated in {where}", data[:end], "damaged or foreign")
    yield Hostile("bytes behind the end", data + bytes(9), "damaged or foreign")


def _framed(data: bytes) -> Iterator[Hostile]:
    """Yield files whose frame, the length and the JSON around the tensors, is wrong."""
    index, body = _index(data)
    damaged = "damaged or foreign"

    def framed(name: str, text: bytes, expected: str = damaged, *, length: int | None = None) -> Hostile:
        n = len(text) if length is None else length
        return Hostile(name, (n % 2**64).to_bytes(8, "little") + text + body, expected)

    def changed(name: str, change: Callable[[dict[str, Any]], None]) -> Hostile:
        copy = json.loads(json.dumps(index))
        change(copy)
        return framed(name, json.dumps(copy).encode())

    text = json.dumps(index).encode()
    first, second = sorted(name for name in index if name != "__metadata__")[:2]
    yield framed("header length of 2**64 - 1", text, length=2**64 - 1)
    yield framed("header length of 100 GB", text, length=100 << 30)
    yield framed("header length of 0", text, length=0)
    yield framed("header one byte short", text, length=len(text) - 1)
    yield framed("header is a list", b"[]")
    yield framed("header is no JSON", b"{" * 500)
    yield framed("header is no text", b"\xff\xfe" * 500)
    yield framed("deep JSON", b"[" * 100_000)
    too_long = f"header of at most {MAX_HEADER_BYTES} bytes"
    yield framed("header of 15 MB of spaces", text + b" " * (15 << 20), too_long)
    lists = json.dumps({**index, "__metadata__": {KEY: "[" + "[]," * (4 << 20) + "[]]"}}).encode()
    yield framed("12 MB of empty lists", lists, too_long)
    names = {f"t{i}": {"dtype": "I8", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}
    yield framed("50,000 empty tensors", json.dumps({**index, **names}).encode(), too_long)
    few = {f"t{i}": {"dtype": "I8", "shape": [0], "data_offsets": [0, 0]} for i in range(10_000)}
    yield framed("10,000 empty tensors", json.dumps({**index, **few}).encode(), "damaged or foreign|found also")
    deep = {"__metadata__": {KEY: "[" * 200_000 + "]" * 200_000}}
    yield framed("deep JSON in the metadata", json.dumps({**index, **deep}).encode(), "without its header")
    wide = {"__metadata__": {KEY: "[" + "[]," * 200_000 + "[]]"}}
    yield framed("200,000 lists in the metadata", json.dumps({**index, **wide}).encode(), "without its header")
    yield changed("overlapping ranges", lambda all_: all_[second].update(data_offsets=all_[first]["data_offsets"]))
    yield changed("range beyond the end", lambda all_: all_[first].update(data_offsets=[0, 1 << 40]))
    yield changed("range turned around", lambda all_: all_[first].update(data_offsets=[9, 3]))
    yield changed("negative range", lambda all_: all_[first].update(data_offsets=[-8, 0]))
    yield changed("shape of 2**62", lambda all_: all_[first].update(shape=[1 << 62]))
    yield changed("shape that overflows", lambda all_: all_[first].update(shape=[1 << 32, 1 << 32, 1 << 32]))
    yield changed("unknown dtype", lambda all_: all_[first].update(dtype="I3"))
    yield changed("dtype of another size", lambda all_: all_[first].update(dtype="F64"))
    bare = {name: entry for name, entry in index.items() if name != "__metadata__"}
    yield framed("no metadata", json.dumps(bare).encode(), "without its header")


def _broken(program: Program) -> Iterator[Hostile]:
    """Yield files that are framed right and hold the wrong things."""
    core = program.cores[0].core

    def made(name: str, change: Change, text: str) -> Hostile:
        header, tensors = parts(program)
        change(header, tensors)
        return Hostile(name, packed(header, tensors), text)

    def top(**fields: Any) -> Change:
        return lambda header, _: header.update(fields)

    def vector(**fields: Any) -> Change:
        return lambda header, _: header["golden"][0].update(fields)

    def tensor(name: str, change: Callable[[NDArray[Any]], NDArray[Any] | None]) -> Change:
        def apply(_: Header, tensors: Tensors) -> None:
            made = change(tensors.pop(name).copy())
            if made is not None:
                tensors[name] = made

        return apply

    def put(at: Any, value: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
        def apply(array: NDArray[Any]) -> NDArray[Any]:
            array[at] = value
            return array

        return apply

    yield made("version of the future", top(format=99), "format version 99")
    yield made("version that is none", top(format=[2]), "format version")
    yield made("unknown chip", top(chip="speck9"), "expected one of speck2e")
    yield made("cores that are none", top(cores=[{}] * 1000), r"cores\[0\]: expected the fields")
    yield made("provenance of NaN", top(provenance={"a": float("nan")}), "provenance: expected finite numbers")
    yield made("weights of floats", tensor(f"core{core}/weight", lambda w: w.astype(np.float32)), "expected int8")
    yield made("weights as one row", tensor(f"core{core}/weight", np.ravel), r"expected shape \[F, C, ky, kx\]")
    yield made("no states", tensor(f"core{core}/initial_state", lambda _: None), "expected a tensor, found none")
    sensor = {"input_shape": [2, 1 << 40, 6], "merge": False, "pool": [1, 1]}
    yield made("sensor of 2**40 rows", top(dvs=sensor), "input map|sensor")
    # golden vectors
    g, where = "golden0", f"golden0/core{core}"
    yield made("golden is no list", top(golden={}), "golden: expected a list")
    yield made("a thousand vectors", lambda h, _: h.update(golden=h["golden"] * 1000), "at most 8 vectors")
    yield made("vector without tensors", lambda h, _: h["golden"].append(h["golden"][0]), "t_us: expected a tensor")
    yield made("tensors without a vector", lambda h, _: h.pop("golden"), "found also golden0/")
    yield made("vector of other fields", vector(extra=1), "golden0: expected the fields")
    yield made("vector without a name", vector(name=3), "name: expected text")
    yield made("name of two lines", vector(name="a\nb"), "name: expected text")
    yield made("negative clock", vector(slow_clock_hz=-1), "slow_clock_hz: expected 0 or a positive")
    yield made("clock of infinity", vector(slow_clock_hz=float("inf")), "slow_clock_hz: expected 0 or a positive")
    yield made("hashes of other cores", vector(contents={"99": "0" * 16}), "contents: expected a hash")
    yield made("hashes that are none", vector(contents={str(c.core): 1 for c in program.cores}), "contents: expected")
    yield made("no golden events", tensor(f"{g}/t_us", lambda t: t[:0]), "expected 1 to 65536 events, found 0")
    yield made("a million golden events", tensor(f"{g}/t_us", lambda t: np.zeros(10**6, t.dtype)), "found 1000000")
    yield made("fewer events than times", tensor(f"{g}/events", lambda e: e[:-1]), r"events: expected shape")
    yield made("events of two columns", tensor(f"{g}/events", lambda e: e[:, :2]), r"events: expected shape")
    yield made("events of floats", tensor(f"{g}/events", lambda e: e.astype(np.float16)), "events: expected int16")
    yield made("event outside the sensor", tensor(f"{g}/events", put((5, 1), 6)), r"x\[5\] is 6")
    yield made("event at a negative row", tensor(f"{g}/events", put((5, 0), -1)), r"y\[5\] is -1")
    yield made("polarity of 2", tensor(f"{g}/events", put((5, 2), 2)), r"p\[5\] is 2")
    yield made("times that run backwards", tensor(f"{g}/t_us", lambda t: t[::-1]), "times that never decrease")
    yield made("negative time", tensor(f"{g}/t_us", put(0, -5)), r"t_us\[0\] is -5")
    yield made("counts of 2**31 - 1", tensor(f"{where}/counts", put(slice(None), 2**31 - 1)), "that add up to")
    yield made("negative counts", tensor(f"{where}/counts", put(0, -1)), "counts of 0 or more")
    yield made("counts of another length", tensor(f"{where}/counts", lambda c: c[:-1]), "counts: expected shape")
    yield made("counts of 64 bits", tensor(f"{where}/counts", lambda c: c.astype(np.int64)), "counts: expected int32")
    yield made("more spikes than counts", tensor(f"{where}/neurons", lambda n: np.append(n, n[:1])), "that add up to")
    yield made("a neuron that is not there", tensor(f"{where}/neurons", put(0, 65_535)), "expected neurons in 0")
    too_many = f"golden0: expected at most {MAX_GOLDEN_SPIKES} spikes over all cores, found "
    yield made("seven million golden spikes", _flood(program, {core: 7_000_000}), too_many + "7000000")
    shared = {one.core: MAX_GOLDEN_SPIKES // 2 + 1 for one in program.cores[:2]}
    yield made("golden spikes too many together", _flood(program, shared), too_many + str(MAX_GOLDEN_SPIKES + 2))
    yield made("full vectors and one tensor more", _flood(program, {core: MAX_GOLDEN_SPIKES}, MAX_GOLDEN), "found also")
    yield made("neurons of two axes", tensor(f"{where}/neurons", lambda n: n[None]), "expected one axis")
    yield made("golden state of another shape", tensor(f"{where}/state", lambda s: s[:-1]), "state: expected shape")
    yield made("golden state of bytes", tensor(f"{where}/state", lambda s: s.astype(np.int8)), "state: expected int16")


def _flood(program: Program, n_spikes: dict[int, int], n_vectors: int = 1) -> Change:
    """Return the change to vectors of so many spikes of each core, all at the first event, and a tensor too many."""

    def apply(header: Header, tensors: Tensors) -> None:
        first = {name: one for name, one in tensors.items() if name.startswith("golden0/")}
        for name in [name for name in tensors if name.startswith("golden")]:
            del tensors[name]
        header["golden"] = header["golden"][:1] * n_vectors
        for core in (one.core for one in program.cores):
            counts = np.zeros_like(first[f"golden0/core{core}/counts"])
            counts[0] = n_spikes.get(core, 0)
            first[f"golden0/core{core}/counts"] = counts
            first[f"golden0/core{core}/neurons"] = np.zeros(counts[0], np.uint16)
        for index in range(n_vectors):
            tensors.update({name.replace("golden0/", f"golden{index}/"): one for name, one in first.items()})
        tensors["more"] = np.zeros(1, np.int8)

    return apply


def _index(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]
