"""A NIR file is read with suspicion: what is damaged, foreign or leads elsewhere is refused in one sentence."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeport.convert.errors import ConvertError, NetFileError, UnsupportedLayerError
from spikeport.convert.exchange import nir_file
from spikeport.convert.exchange.nir_file import check_heaps, read_nir_file
from spikeport.convert.exchange.nir_in import load_nir
from spikeport.convert.types import SpikingNet

from .nir_files import fires, graph, linear, output, write
from .nir_files import given as source

PLAIN = {"input": source(3), "w": linear(np.ones((2, 3))), "s": fires(), "output": output(2)}


def _edited(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path, PLAIN)
        with h5py.File(path, "r+") as file:
            change(file)

    return make


def _replaced(key: str, value: object) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        if key in file:
            del file[key]
        if value is not None:
            file[key] = value

    return _edited(change)


def _elsewhere(file: h5py.File) -> None:
    del file["node/nodes/w/weight"]
    file["node/nodes/w"].create_dataset("weight", (2, 3), "f4", external=[("secrets.bin", 0, 24)])


def _virtual(file: h5py.File) -> None:
    del file["node/nodes/w/weight"]
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2, 3))
    file["node/nodes/w"].create_virtual_dataset("weight", layout)


def _bomb(file: h5py.File) -> None:
    del file["node/nodes/w/weight"]
    file["node/nodes/w"].create_dataset("weight", (1 << 16, 1 << 16), "f8", compression="gzip", chunks=True)


def _turned_on_itself(file: h5py.File) -> None:
    file["node/nodes/loop"] = file["node"]


def _truncated(path: Path) -> None:
    write(path, PLAIN)
    path.write_bytes(path.read_bytes()[:-300])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _path: None, "found nothing"),
    "folder": (lambda path: path.mkdir(), "found a folder"),
    "empty": (lambda path: path.write_bytes(b""), "damaged or foreign"),
    "text": (lambda path: path.write_text("hello"), "damaged or foreign"),
    "truncated": (_truncated, "damaged or foreign"),
    "another kind of HDF5": (lambda path: h5py.File(path, "w").close(), "without a group 'node'"),
    "an array for a graph": (_replaced("node", np.ones(3)), "without a group 'node'"),
    "no graph": (_replaced("node/type", "IF"), "expected a NIRGraph with nodes and edges, found 'IF'"),
    "no edges": (_replaced("node/edges", None), "expected a NIRGraph"),
    "edges of numbers": (_replaced("node/edges", np.ones((2, 2))), "expected pairs of names"),
    "edges of three": (_replaced("node/edges", np.array([["a", "b", "c"]], "S1")), "expected pairs of names"),
    "an edge to nowhere": (_replaced("node/edges", np.array([["input", "x"]], "S5")), "'input' -> 'x': .* 'x' is none"),
    "no type": (_replaced("node/nodes/w/type", None), "node 'w': expected a type"),
    "soft link": (_replaced("node/nodes/w/weight", h5py.SoftLink("/version")), "'weight' is a link to elsewhere"),
    "external link": (
        _replaced("node/nodes/w/weight", h5py.ExternalLink("other.h5", "/x")),
        "'weight' is a link to elsewhere",
    ),
    "external array": (_edited(_elsewhere), "'weight' lies in another file"),
    "virtual array": (_edited(_virtual), "'weight' lies in another file"),
    "huge array": (_edited(_bomb), "expected at most .* bytes of arrays"),
    "empty array": (_replaced("node/nodes/w/weight", h5py.Empty("f4")), "'weight' is empty"),
    "compound": (_replaced("node/nodes/w/weight", np.zeros(2, [("a", "f4")])), "'weight': expected numbers or text"),
    "named type": (_replaced("node/nodes/w/weight", np.dtype("f4")), "'weight': expected a group or an array"),
    "itself inside": (_edited(_turned_on_itself), "nested less than"),
    "strange name": (_replaced("node/nodes/w/a\x07b", np.ones(1)), "expected names of plain text"),
    "two of a name": (
        lambda path: write(
            path, {**PLAIN, "g": graph({"a": source(3), "b": output(3)}, [("a", "b")]), "g.a": fires()}, []
        ),
        "two nodes have the same name",
    ),
    "subgraph without end": (lambda path: write(path, {**PLAIN, "g": graph({"a": source(3)}, [])}, []), "one Output"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused_in_one_sentence_that_names_them(name: str, tmp_path: Path) -> None:
    damage, words = DAMAGE[name]
    path = tmp_path / "my.net.nir"
    damage(path)
    with pytest.raises(NetFileError, match=words) as caught:
        load_nir(path)
    assert caught.value.exit_code == 6
    assert "my.net.nir" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Try" in str(caught.value)


def test_a_file_of_too_many_bytes_or_entries_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "net.nir", PLAIN)
    monkeypatch.setattr(nir_file, "_MAX_ITEMS", 5)
    with pytest.raises(NetFileError, match="expected at most 5 entries"):
        load_nir(path)
    monkeypatch.setattr(nir_file, "MAX_BYTES", 100)
    with pytest.raises(NetFileError, match="expected at most 100 bytes"):
        load_nir(path)


def test_cycles_are_named(tmp_path: Path) -> None:
    nodes = {"input": source(2), "w": linear(np.eye(2)), "s": fires(), "output": output(2)}
    edges = [("input", "w"), ("w", "s"), ("s", "w"), ("s", "output")]
    with pytest.raises(UnsupportedLayerError, match=r"recurrent: ('s' -> 'w' -> 's'|'w' -> 's' -> 'w')") as caught:
        load_nir(write(tmp_path / "net.nir", nodes, edges))
    assert caught.value.exit_code == 3
    with pytest.raises(UnsupportedLayerError, match="recurrent: 's' -> 's'"):
        load_nir(write(tmp_path / "net.nir", nodes, [*edges[:2], ("s", "s"), edges[3]]))


def test_nodes_stand_behind_what_they_read_and_numbers_count(tmp_path: Path) -> None:
    names = ["input", *map(str, range(12)), "output"]
    nodes = {name: fires() for name in names} | {"input": source(2), "output": output(2)}
    file = read_nir_file(write(tmp_path / "net.nir", nodes, list(itertools.pairwise(names))))
    assert [node.name for node in file.nodes] == names
    free = read_nir_file(write(tmp_path / "net.nir", {name: fires() for name in names}, []))
    assert [node.name for node in free.nodes] == [*map(str, range(12)), "input", "output"]


def test_the_same_edge_twice_counts_once(tmp_path: Path) -> None:
    edges = [("input", "w"), ("input", "w"), ("w", "s"), ("s", "output")]
    file = read_nir_file(write(tmp_path / "net.nir", PLAIN, edges))
    assert file.inputs["w"] == ("input",)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_raise_a_documented_error_or_still_hold_a_net(data: st.DataObject, tmp_path: Path) -> None:
    original = tmp_path / "plain.nir"
    if not original.exists():
        write(original, PLAIN)
    content = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.nir"
    path.write_bytes(bytes(content))
    with contextlib.suppress(ConvertError):
        assert isinstance(load_nir(path), SpikingNet)


def test_a_heap_that_never_ends_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "net.nir", PLAIN)
    content = (tmp_path / "net.nir").read_bytes()
    check_heaps(content)
    heaps = [start for start in range(len(content)) if content.startswith(b"GCOL\x01\x00\x00\x00", start)]
    assert heaps
    for start in heaps:
        place, end = start + 16, start + int.from_bytes(content[start + 8 : start + 16], "little")
        while place + 16 <= end:
            index, size = (int.from_bytes(content[place + i : place + i + n], "little") for i, n in ((0, 2), (8, 8)))
            if not index:  # what is free: its size is all that leads to the end
                (tmp_path / "bad.nir").write_bytes(content[: place + 8] + bytes(8) + content[place + 16 :])
                with pytest.raises(NetFileError, match=r"bad\.nir: .*damaged heap of texts"):
                    load_nir(tmp_path / "bad.nir")
            place += size if not index else 16 + (size + 7) // 8 * 8
        assert place >= end - 16
