"""What the nodes of a NIR file mean, against a plain event loop over the file's own terms; and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spikeport.convert import simulate
from spikeport.convert.errors import InputError, NetFileError, UnsupportedLayerError, WeightValueError
from spikeport.convert.exchange.nir_in import load_nir, read_nir
from spikeport.convert.types import Edge, SpikingNet

from .nir_files import Node, conv, fires, given, graph, leaks, linear, output, pool, write

RNG = np.random.default_rng(0)
WIDE = RNG.integers(-4, 9, (3, 2, 3, 3)) / 8
DENSE = RNG.integers(-4, 9, (5, 12)) / 8
NODES = {
    "input": given(2, 6, 6),
    "0": conv(WIDE),
    "1": fires(np.full((3, 4, 4), 0.75)),
    "2": pool("AvgPool2d", 2),
    "3": {"type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": np.array([3, 2, 2])},
    "4": linear(DENSE),
    "5": fires(np.full(5, 0.5)),
    "output": output(5),
}


def _counts(x: torch.Tensor, threshold: float, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    v = v + x
    spikes = torch.where(v >= threshold, torch.floor(v / threshold), torch.zeros_like(v))
    return spikes, v - spikes * threshold


def test_a_net_of_averages_and_matrices_gives_the_spikes_of_its_terms(tmp_path: Path) -> None:
    net = load_nir(write(tmp_path / "net.nir", NODES))
    raster = (RNG.random((30, 2, 6, 6)) < 0.4).astype(np.float32)
    v0, v1, expected = torch.zeros(1, 3, 4, 4), torch.zeros(1, 5), []
    for frame in torch.from_numpy(raster)[:, None]:
        spikes, v0 = _counts(F.conv2d(frame, torch.tensor(WIDE, dtype=torch.float32)), 0.75, v0)
        flat = F.avg_pool2d(spikes, 2).flatten(1)
        out, v1 = _counts(flat @ torch.tensor(DENSE, dtype=torch.float32).T, 0.5, v1)
        expected.append(out[0])
    np.testing.assert_array_equal(simulate(net, raster).output[:, 0], torch.stack(expected).numpy())
    assert [layer.name for layer in net.layers] == ["conv0", "linear4"]


def _same_spikes(one: SpikingNet, other: SpikingNet) -> None:
    raster = (np.random.default_rng(1).random((12, *one.input_shape)) < 0.4).astype(np.float32)
    np.testing.assert_array_equal(simulate(one, raster).output, simulate(other, raster).output)


def _with(name: str, node: Node, **others: Node) -> Mapping[str, Node]:
    return {**NODES, name: node, **others}


def _inserted(before: str, name: str, node: Node) -> dict[str, Node]:
    return {
        key: value
        for old, given in NODES.items()
        for key, value in ((name, node), (old, given))
        if key != name or old == before
    }


IDENTITY = np.eye(2).reshape(2, 2, 1, 1)
SAME: dict[str, Mapping[str, Node]] = {
    "thresholds of single numbers": _with("1", fires(0.75)),
    "a gain in place of a threshold": _with("1", fires(1.5, 2.0)),
    "a gain for each feature": _with(
        "1",
        fires(
            np.full((3, 4, 4), 0.75) * np.array([1, 2, 4])[:, None, None],
            np.ones((3, 4, 4)) * np.array([1, 2, 4])[:, None, None],
        ),
    ),
    "a time step of 0.1 ms": _with("1", fires(0.75, 1e4)),
    "a step once and never again": _with("1", fires(np.full((1, 3, 4, 4), 0.75))),
    "a reset potential of 0": _with("1", fires(0.75, v_reset=np.zeros(()))),
    "a potential that hardly leaks": _with("1", leaks(1e4, 1e8, v_threshold=np.asarray(0.75))),
    "a beta of 1": _with("1", leaks(np.inf, np.inf, v_threshold=np.asarray(0.75))),
    "sums in place of averages": _with("2", pool("SumPool2d", 2), **{"4": linear(DENSE / 4)}),
    "a factor behind the pool": _with(
        "2", pool("SumPool2d", 2), **{"3": {"type": "Scale", "scale": np.full((3, 2, 2), 0.25)}}
    ),
    "a bias of zeros": _with("4", {"type": "Affine", "weight": DENSE, "bias": np.zeros(5)}),
    "padding in words": _with("0", conv(WIDE, padding="valid")),
    "another way to flatten": _with("3", {"type": "Flatten", "start_dim": 1, "end_dim": -1}),
    "a batch axis in the input": _with("input", given(1, 2, 6, 6)),
    "time and batch in the input": _with("input", given(9, 1, 2, 6, 6)),
    "no shape but in the convolution": _with("input", given(0), **{"0": conv(WIDE, input_shape=np.array([6, 6]))}),
    "a delay of nothing": _inserted("4", "wait", {"type": "Delay", "delay": np.zeros(12)}),
}


@pytest.mark.parametrize("name", SAME)
def test_other_words_for_the_same_net_give_the_same_spikes(name: str, tmp_path: Path) -> None:
    expected = load_nir(write(tmp_path / "plain.nir", NODES))
    _same_spikes(expected, load_nir(write(tmp_path / "other.nir", SAME[name])))


def test_scales_fold_into_the_weights_on_either_side(tmp_path: Path) -> None:
    factor = np.broadcast_to(np.array([1.0, 2.0, 0.5])[:, None, None], (3, 4, 4))
    behind = _inserted("1", "scale", {"type": "Scale", "scale": factor})
    weight = WIDE * np.array([1, 2, 0.5])[:, None, None, None]
    _same_spikes(
        load_nir(write(tmp_path / "a.nir", behind)), load_nir(write(tmp_path / "b.nir", _with("0", conv(weight))))
    )


def test_convolutions_along_one_axis_are_of_height_1(tmp_path: Path) -> None:
    line = {
        "type": "Conv1d",
        "weight": WIDE[:, :, 0],
        "bias": np.zeros(3),
        "stride": 2,
        "padding": 1,
        "dilation": 1,
        "groups": 1,
    }
    net = load_nir(write(tmp_path / "net.nir", {"input": given(2, 9), "a": line, "b": fires(), "output": output(3, 5)}))
    (layer,) = net.layers
    assert (net.input_shape, layer.out_shape) == ((2, 1, 9), (3, 1, 5))
    assert (layer.stride, layer.padding) == ((1, 2), (0, 1))


@pytest.mark.parametrize("edge", [2, 3])
def test_padding_same_keeps_the_size_as_torch_does(edge: int, tmp_path: Path) -> None:
    weight = RNG.integers(-4, 9, (3, 2, edge, edge)) / 8
    nodes = {"input": given(2, 6, 6), "a": conv(weight, padding="same"), "b": fires(0.75), "output": output(3, 6, 6)}
    raster = (RNG.random((1, 2, 6, 6)) < 0.5).astype(np.float32)
    before, after = (edge - 1) // 2, edge // 2  # torch warns of even kernels, and does this
    padded = F.pad(torch.from_numpy(raster), (before, after, before, after))
    expected = F.conv2d(padded, torch.tensor(weight, dtype=torch.float32))
    found = simulate(load_nir(write(tmp_path / "net.nir", nodes)), raster)
    np.testing.assert_array_equal(found.output[0, 0], _counts(expected, 0.75, torch.zeros(1))[0].flatten().numpy())


def test_branches_add_up_in_the_neurons(tmp_path: Path) -> None:
    """A shortcut of 1x1, spikes themselves, and a 3x3 kernel that keeps the size: one layer reads all three."""
    body = RNG.integers(-4, 9, (2, 2, 3, 3)) / 8
    short = RNG.integers(-4, 9, (2, 2, 1, 1)) / 8
    nodes = {
        "input": given(2, 6, 6),
        "first": conv(IDENTITY),
        "if1": fires(1.0),
        "body": conv(body, padding=np.array([1, 1])),
        "short": conv(short, bias=np.ones(2) / 8),
        "if2": fires(0.75),
        "output": output(2, 6, 6),
    }
    edges = [("input", "first"), ("first", "if1"), ("if1", "body"), ("if1", "short"), ("if1", "if2")]
    edges += [("body", "if2"), ("short", "if2"), ("if2", "output")]
    net = load_nir(write(tmp_path / "net.nir", nodes, edges))
    raster = (RNG.random((1, 2, 6, 6)) < 0.5).astype(np.float32)
    x = torch.from_numpy(raster)
    current = F.conv2d(x, torch.tensor(body, dtype=torch.float32), padding=1) + x
    current = current + F.conv2d(x, torch.tensor(short, dtype=torch.float32)) + 1 / 8
    spikes = _counts(current, 0.75, torch.zeros(1))[0]
    np.testing.assert_array_equal(simulate(net, raster).output[0, 0], spikes.flatten().numpy())
    assert len(net.layers) == 2
    assert sorted(edge.feature_shift for edge in net.incoming(1)) == [0, 2, 4]


def test_subgraphs_are_laid_open(tmp_path: Path) -> None:
    inner = graph({"input": given(2, 6, 6), "w": conv(WIDE), "s": fires(0.75), "output": output(3, 4, 4)})
    outer = {"input": given(2, 6, 6), "block": inner, **{key: NODES[key] for key in ("2", "3", "4", "5", "output")}}
    found = read_nir(write(tmp_path / "net.nir", outer))
    _same_spikes(found.net, load_nir(write(tmp_path / "plain.nir", NODES)))
    assert [finding.node for finding in found.findings if finding.op == "IF"] == ["block.s", "5"]


def test_weights_at_the_end_get_spiking_neurons_and_it_is_said(tmp_path: Path) -> None:
    nodes = {key: node for key, node in NODES.items() if key != "5"}
    found = read_nir(write(tmp_path / "net.nir", nodes), v_min=-1.0)
    assert (found.net.layers[-1].threshold, found.net.layers[-1].v_min) == (1.0, -1.0)
    assert "a spiking output layer of threshold 1 was added" in found.findings[-1].detail


def test_what_no_output_depends_on_is_left_out_and_said(tmp_path: Path) -> None:
    names = list(NODES)
    edges = [*itertools.pairwise(names), ("1", "spare")]
    found = read_nir(write(tmp_path / "net.nir", {**NODES, "spare": fires()}, edges))
    assert len(found.net.layers) == 2
    assert "no output depends on it" in {f.node: f.detail for f in found.findings}["spare"]


def test_options_say_what_the_file_does_not(tmp_path: Path) -> None:
    path = write(tmp_path / "net.nir", _with("input", given(0)))
    with pytest.raises(UnsupportedLayerError, match=r"Try input_shape=\(channels, height, width\)"):
        load_nir(path)
    net = load_nir(path, input_shape=(2, 6, 6), v_min=-2.0)
    assert [layer.v_min for layer in net.layers] == [-1.5, -1.0]
    assert all(layer.v_min is None for layer in load_nir(path, input_shape=(2, 6, 6)).layers)
    flat = {"input": given(72), "w": linear(np.ones((3, 72)) / 8), "s": fires(), "output": output(3)}
    assert load_nir(write(tmp_path / "flat.nir", flat)).input_shape == (72, 1, 1)
    assert load_nir(tmp_path / "flat.nir", input_shape=(2, 6, 6)).input_shape == (2, 6, 6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_shape": (2, 0, 6)}, "input_shape: expected"),
        ({"dt_s": 0.0}, "dt_s: expected"),
        ({"v_min": 1.0}, "v_min: expected"),
        ({"replace": ("lif=tanh",)}, "replace: expected some of lif=if, found lif=tanh"),
    ],
)
def test_options_that_mean_nothing_are_named(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_nir(write(tmp_path / "net.nir", NODES), **options)


CUBA = {"type": "CubaLIF", "tau_mem": np.ones(5), "tau_syn": np.ones(5), "r": np.ones(5), "v_threshold": np.ones(5)}
REFUSED: dict[str, tuple[Mapping[str, Node], str]] = {
    "leaks": (_with("5", leaks(0.01)), r"node '5' \(LIF\): its potential leaks .* Try IF .* replace=\('lif=if',\)"),
    "leaks elsewhere": (_with("5", leaks(1e6, 1e10, v_leak=np.ones(()))), "leaks to a potential that is not 0"),
    "currents": (_with("5", CUBA), r"node '5' \(CubaLIF\): its current and its potential decay"),
    "leaky integrator": (_with("5", {"type": "LI", "tau": np.ones(5)}), r"\(LI\): it decays and never spikes"),
    "integrator": (_with("5", {"type": "I", "r": np.ones(5)}), r"\(I\): it never spikes"),
    "no memory": (_with("5", {"type": "Threshold", "threshold": np.ones(5)}), "fires without a potential"),
    "reset": (_with("5", fires(v_reset=np.full(5, -0.5))), r"reset to -0.5, here to what is left over"),
    "thresholds": (_with("5", fires(np.array([1.0, 1, 1, 1, 0]))), "its threshold is 0, not above 0"),
    "thresholds that differ": (_with("1", fires(RNG.random((3, 4, 4)))), "v_threshold differs within a feature"),
    "thresholds of another net": (_with("1", fires(np.ones(7))), "v_threshold is for 7 neurons, expected 48"),
    "no threshold": (_with("5", {"type": "IF", "r": np.ones(5)}), "its v_threshold is not there"),
    "nan": (_with("5", fires(np.nan)), "v_threshold holds NaN"),
    "r": (_with("5", fires(1.0, -1.0)), "its r is -1"),
    "r of a step": (_with("5", fires(1.0, 500.0)), "its r of 500 is one over a time step. Try dt_s=0.002"),
    "unknown": (
        _with("2", {"type": "MaxPool2d", "kernel_size": 2}),
        r"node '2' \(MaxPool2d\): no counterpart is known",
    ),
    "overlapping": (_with("2", pool("AvgPool2d", 2, stride=np.array([1, 1]))), r"windows of \(2, 2\) overlap"),
    "large pool": (_with("2", pool("SumPool2d", 5)), "its window is larger than its map of 4x4"),
    "delay": (_inserted("4", "wait", {"type": "Delay", "delay": np.ones(12)}), "Try delays of 0"),
    "no neurons between": (_inserted("1", "again", conv(np.ones((3, 3, 1, 1)))), "without neurons between"),
    "channels": (_with("0", conv(np.ones((3, 4, 3, 3)))), "Try input_shape="),
    "another map": (_with("0", conv(WIDE, input_shape=np.array([9, 9]))), "it is for maps of 9x9 and reads 6x6"),
    "kernel": (_with("0", conv(np.ones((3, 2, 7, 7)))), "kernel is larger than its map of 6x6"),
    "matrix": (_with("4", linear(np.ones((5, 13)))), "it takes 13 values and reads 12"),
    "no weights": (_with("4", {"type": "Linear"}), "its weight has NoneType, expected 2 axes"),
    "bias": (_with("0", conv(WIDE, bias=np.zeros(2))), "its bias has 2 entries for 3 features"),
    "stride": (_with("0", conv(WIDE, stride=np.array([0, 1]))), r"its stride is \[0 1\], expected two numbers of 1"),
    "padding": (_with("0", conv(WIDE, padding="mirror")), "its padding is 'mirror'"),
    "same and stride": (_with("0", conv(WIDE, padding="same", stride=np.array([2, 2]))), "'same' with a stride"),
    "part of a flatten": (_with("3", {"type": "Flatten", "start_dim": 2, "end_dim": -1}), "flattens the axes 2 to -1"),
    "scales": (_inserted("4", "s", {"type": "Scale", "scale": RNG.random(12)}), "its scale differs within a feature"),
    "scaled output": (
        _inserted("output", "s", {"type": "Scale", "scale": np.arange(1.0, 6.0)}),
        "what it reads is scaled, for some features otherwise",
    ),
    "metadata": (_with("5", fires(metadata={"v_min": 3.0})), "its metadata say v_min 3"),
    "initial state": (_with("5", fires(metadata={"v_init": np.zeros(5)})), r"v_init of shape \(5,\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_said_in_layers_is_refused_by_name(name: str, tmp_path: Path) -> None:
    nodes, words = REFUSED[name]
    with pytest.raises(UnsupportedLayerError, match=words) as caught:
        load_nir(write(tmp_path / "my.nir", nodes))
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith("my.nir: node '")
    assert all("Try" in finding.detail for finding in caught.value.findings)


def test_all_refusals_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedLayerError) as caught:
        load_nir(write(tmp_path / "net.nir", _with("1", CUBA, **{"input": given(2, 6, 6)})))
    assert [finding.node for finding in caught.value.findings] == ["1"]
    branches = {"input": given(2, 6, 6), "a": leaks(0.1), "b": CUBA, "output": output(2, 6, 6)}
    edges = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")]
    with pytest.raises(UnsupportedLayerError, match="2 nodes refused in all"):
        load_nir(write(tmp_path / "net.nir", branches, edges))


def _edges(*edges: tuple[str, str]) -> Callable[[Path], Path]:
    return lambda path: write(path, NODES, edges)


WIRING: dict[str, tuple[Callable[[Path], Path], str]] = {
    "two inputs": (
        lambda path: write(
            path,
            {"input": given(2, 6, 6), "other": given(2, 6, 6), "s": fires(), "output": output(2, 6, 6)},
            [("input", "s"), ("other", "s"), ("s", "output")],
        ),
        "it is one of 2 inputs",
    ),
    "two outputs": (
        lambda path: write(
            path,
            {"input": given(2, 6, 6), "s": fires(), "output": output(2, 6, 6), "more": output(2, 6, 6)},
            [("input", "s"), ("s", "output"), ("s", "more")],
        ),
        "it is one of several outputs",
    ),
    "nothing feeds it": (_edges(("4", "5"), ("5", "output")), "nothing feeds it"),
    "maps of two sizes": (
        lambda path: write(
            path,
            {"input": given(2, 6, 6), "a": conv(WIDE[:2]), "s": fires(), "output": output(2, 4, 4)},
            [("input", "a"), ("a", "s"), ("input", "s"), ("s", "output")],
        ),
        r"it adds up maps of \(2, 4, 4\) and \(2, 6, 6\)",
    ),
    "kernels that do not meet": (
        lambda path: write(
            path,
            {
                "input": given(2, 6, 6),
                "a": conv(WIDE, stride=np.array([2, 2]), padding=np.array([1, 1])),
                "b": conv(np.ones((3, 2, 4, 4))),
                "s": fires(),
                "output": output(3, 3, 3),
            },
            [("input", "a"), ("input", "b"), ("a", "s"), ("b", "s"), ("s", "output")],
        ),
        "kernels of different reach",
    ),
}


@pytest.mark.parametrize("name", WIRING)
def test_wiring_that_is_no_net_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, words = WIRING[name]
    with pytest.raises(UnsupportedLayerError, match=words):
        load_nir(make(tmp_path / "net.nir"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    weight = DENSE.copy()
    weight[1, 2] = value
    nodes = _with("4", {"type": "Linear", "weight": weight})
    with pytest.raises(
        WeightValueError, match=r"node '4' \(Linear\): weight: .* found 1 NaN or infinite of 60"
    ) as caught:
        load_nir(write(tmp_path / "net.nir", nodes))
    assert caught.value.exit_code == 6


def test_metadata_of_ours_that_contradict_the_file_are_no_more_than_words(tmp_path: Path) -> None:
    kept: Sequence[Mapping[str, Any]] = (
        {"index": 7, "layer": "a", "groups": 3, "has_bias": 1},
        {"index": 7, "layer": "a"},
    )
    nodes = _with("1", fires(0.75, metadata=dict(kept[0])), **{"5": fires(0.5, metadata=dict(kept[1]))})
    net = load_nir(write(tmp_path / "net.nir", nodes))
    assert [layer.name for layer in net.layers] == ["a", "linear4"]
    assert net.edges[0] == Edge(-1, 0)
    _same_spikes(net, load_nir(write(tmp_path / "plain.nir", NODES)))


def test_a_file_without_output_is_no_net(tmp_path: Path) -> None:
    nodes = {key: node for key, node in NODES.items() if key != "output"}
    with pytest.raises(NetFileError, match=r"net\.nir: expected an Output node, found none"):
        load_nir(write(tmp_path / "net.nir", nodes))
