"""What is written as NIR comes back as it was, and other frameworks can run it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from spikeport.convert import simulate
from spikeport.convert.errors import UnsupportedLayerError
from spikeport.convert.exchange.nir_in import load_nir, read_nir
from spikeport.convert.exchange.nir_out import nir_bytes, save_nir
from spikeport.convert.geometry import pooled
from spikeport.convert.types import INPUT, Edge, SpikingLayer, SpikingNet, chain

from .frameworks import peer, quiet
from .nets import random_chain, random_graph

FILES = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


def _net(seed: int) -> SpikingNet:
    rng = np.random.default_rng(seed)
    net = random_graph(rng) if seed % 2 else random_chain(rng)
    assume(all(layer.upsample == (1, 1) for layer in net.layers))
    return net


def _is_filled(net: SpikingNet) -> bool:
    """Whether the edges to each layer fill its channels without overlap."""
    for index, layer in enumerate(net.layers):
        parts = {(edge.feature_shift, net.source_shape(edge)[0]) for edge in net.incoming(index)}
        starts, first = dict(parts), 0
        while first in starts:
            first += starts.pop(first)
        if starts or first != layer.in_shape[0] or len(dict(parts)) != len(parts):
            return False
    return True


def _raster(net: SpikingNet) -> np.ndarray:
    return (np.random.default_rng(0).random((6, *net.input_shape)) < 0.4).astype(np.float32)


@FILES
@given(st.integers(0, 10_000))
def test_load_gives_back_what_was_saved(tmp_path: Path, seed: int) -> None:
    net = _net(seed)
    save_nir(net, tmp_path / "net.nir")
    found = load_nir(tmp_path / "net.nir")
    assert found.same(net) or not _is_filled(net)
    one, other = (simulate(each, _raster(each)) for each in (net, found))
    np.testing.assert_array_equal(one.output, other.output)
    for before, after in zip(one.counts, other.counts, strict=True):
        np.testing.assert_array_equal(before, after)


@FILES
@given(st.integers(0, 10_000))
def test_a_file_without_our_metadata_gives_the_same_spikes(tmp_path: Path, seed: int) -> None:
    net = _net(seed)
    net = dataclasses.replace(
        net, layers=tuple(dataclasses.replace(layer, v_min=None, v_init=None) for layer in net.layers)
    )
    ends = [edge for edge in net.edges if edge.target is None]
    assume(len({(edge.feature_shift, pooled(net.source_shape(edge), edge.pool)) for edge in ends}) == 1)
    assume(net.output_shape is not None)
    save_nir(net, tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        del file["node/metadata"]
        for node in file["node/nodes"].values():
            node.pop("metadata", None)
    found = load_nir(tmp_path / "net.nir")
    one, other = (simulate(each, _raster(each)) for each in (net, found))
    np.testing.assert_array_equal(one.output, other.output)
    assert sorted(count.sum() for count in one.counts) == sorted(count.sum() for count in other.counts)


def test_equal_nets_give_equal_bytes_and_notes_are_kept() -> None:
    net = chain((_layer("a", (2, 6, 6)),), ((1, 1), (2, 2)), (2, 6, 6))
    assert nir_bytes(net, {"b": 1, "a": [2]}) == nir_bytes(net, {"a": [2], "b": 1})
    assert nir_bytes(net) != nir_bytes(net, {"a": 1})


def _layer(name: str, in_shape: tuple[int, int, int], **changes: object) -> SpikingLayer:
    rng = np.random.default_rng(len(name))
    weight = rng.integers(-4, 9, (3, in_shape[0], 3, 3)) / 8
    out_shape = 3, in_shape[1] - 2, in_shape[2] - 2
    given = {"bias": None, "stride": (1, 1), "padding": (0, 0), "threshold": 0.75, "v_min": -0.75}
    return SpikingLayer(name=name, weight=weight, in_shape=in_shape, out_shape=out_shape, **{**given, **changes})  # type: ignore[arg-type]


def test_names_that_hdf5_or_torch_cannot_take_come_back(tmp_path: Path) -> None:
    names = ("features/0.conv", "input", "input_1", "..", "output_if")
    shape = (3, 16, 16)
    layers = []
    for name in names:
        layers.append(_layer(name, shape))
        shape = layers[-1].out_shape
    net = chain(tuple(layers), ((1, 1),) * (len(layers) + 1), (3, 16, 16))
    save_nir(net, tmp_path / "net.nir")
    assert load_nir(tmp_path / "net.nir").same(net)
    assert all(name.isidentifier() for name in nir.read(tmp_path / "net.nir").nodes)


def test_metadata_that_others_can_read_say_what_nir_does_not(tmp_path: Path) -> None:
    layer = _layer("conv", (2, 6, 6), v_init=np.full((3, 4, 4), 0.25), bias=np.zeros(3))
    save_nir(chain((layer,), ((1, 1), (2, 2)), (2, 6, 6)), tmp_path / "net.nir", notes={"seed": 1})
    graph = nir.read(tmp_path / "net.nir")
    neurons = graph.nodes["conv_if"]
    assert neurons.metadata["reset"] == "subtract"
    assert neurons.metadata["v_min"] == -0.75
    assert neurons.metadata["layer"] == "conv"
    np.testing.assert_array_equal(neurons.metadata["v_init"], layer.v_init)
    np.testing.assert_array_equal(neurons.v_threshold, np.full(layer.out_shape, 0.75))
    assert json.loads(graph.metadata["spikeport_notes"]) == {"seed": 1}
    assert graph.infer_types() is None


def test_branches_are_edges_and_what_stands_side_by_side_adds_up(tmp_path: Path) -> None:
    first, second = _layer("a", (2, 6, 6)), _layer("bb", (2, 6, 6))
    last = _layer("joined", (6, 4, 4))
    edges = (Edge(INPUT, 0), Edge(INPUT, 1), Edge(0, 2), Edge(1, 2), Edge(1, 2, (1, 1), 3), Edge(2, None))
    net = SpikingNet((first, second, last), edges, (2, 6, 6))
    save_nir(net, tmp_path / "net.nir")
    written = set(nir.read(tmp_path / "net.nir").edges)
    assert {("a_if", "joined"), ("bb_if", "joined"), ("bb_if", "joined_1")} <= written
    assert {("joined", "joined_if"), ("joined_1", "joined_if")} <= written
    assert load_nir(tmp_path / "net.nir").same(net)


def test_transposed_convolutions_are_refused_by_name(tmp_path: Path) -> None:
    weight = np.ones((3, 2, 3, 3))
    layer = dataclasses.replace(_layer("up", (2, 6, 6)), weight=weight, upsample=(2, 2), out_shape=(3, 9, 9))
    with pytest.raises(UnsupportedLayerError, match=r"layer 'up': NIR has no transposed convolution\. Try") as caught:
        save_nir(chain((layer,), ((1, 1), (1, 1)), (2, 6, 6)), tmp_path / "net.nir")
    assert caught.value.exit_code == 3
    assert [finding.node for finding in caught.value.findings] == ["up"]
    assert list(tmp_path.iterdir()) == []


def test_sinabs_runs_what_was_written(tmp_path: Path) -> None:
    from_nir = peer("sinabs.nir").from_nir
    layers = _layer("a", (2, 12, 12)), _layer("bb", (3, 5, 5))
    net = chain(layers, ((1, 1), (2, 2), (1, 1)), (2, 12, 12))
    save_nir(net, tmp_path / "net.nir")
    raster = (np.random.default_rng(0).random((20, *net.input_shape)) < 0.3).astype(np.float32)
    with quiet(), torch.no_grad():
        module = from_nir(nir.read(tmp_path / "net.nir"), batch_size=1)  # its lower bound is minus the threshold
        found = module(torch.from_numpy(raster))
    spikes = (found[0] if isinstance(found, tuple) else found).flatten(1).numpy()
    np.testing.assert_array_equal(spikes, simulate(net, raster).output[:, 0])


def test_every_node_of_the_file_has_a_finding(tmp_path: Path) -> None:
    net = chain((_layer("a", (2, 6, 6)),), ((1, 1), (2, 2)), (2, 6, 6))
    save_nir(net, tmp_path / "net.nir")
    found = read_nir(tmp_path / "net.nir")
    assert sorted(finding.node for finding in found.findings) == ["a", "a_if", "a_if_pool2x2", "input", "output"]
    assert all(finding.status != "refused" for finding in found.findings)
