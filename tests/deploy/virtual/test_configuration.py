"""The configuration tree: names, types, ranges, references and copies, JSON."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeport.deploy.virtual.configuration import (
    CLASSES,
    CONFIGURATIONS,
    CnnLayerConfig,
    DvsLayerConfig,
    Speck2eConfiguration,
    SpeckConfiguration,
)
from spikeport.deploy.virtual.fields import Struct

from .writer import configured, random_program


def test_the_tree_has_the_attributes_of_the_driver() -> None:
    configuration = SpeckConfiguration()
    assert len(configuration.cnn_layers) == 9
    assert [len(layer.destinations) for layer in configuration.cnn_layers] == [2] * 9
    assert set(configuration.to_dict()) == {
        "cnn_layers",
        "dvs_layer",
        "dvs_filter",
        "readout",
        "factory_config",
        "debug_config",
    }
    layer = configuration.cnn_layers[0]
    assert (layer.threshold_high, layer.threshold_low, layer.destinations[0].pooling) == (0, -1, 1)
    assert (layer.weights, layer.biases, layer.neurons_initial_value) == ([], [], [])
    assert (configuration.dvs_layer.cut.x, configuration.dvs_layer.cut.y) == (127, 127)
    assert configuration.factory_config.internal_slow_clk_divider == 17


@pytest.mark.parametrize(
    ("path", "value", "kind"),
    [
        ("treshold_high", 1, AttributeError),
        ("dimensions.kernel", 3, AttributeError),
        ("dimensions", {"kernel": 3}, AttributeError),
        ("dimensions", {"stride": {"z": 1}}, AttributeError),
        ("dimensions", 3, TypeError),
        ("dimensions", {"kernel_size": "3"}, TypeError),
        ("dimensions.kernel_size", 3.0, TypeError),
        ("dimensions.kernel_size", np.float64(3), TypeError),
        ("dimensions.kernel_size", None, TypeError),
        ("threshold_high", 32768, TypeError),
        ("threshold_low", -32769, TypeError),
        ("threshold_high", "127", TypeError),
        ("monitor_enable", "yes", TypeError),
        ("monitor_enable", [True], TypeError),
        ("weights", [[1]], TypeError),
        ("weights", [[[[128]]]], TypeError),
        ("weights", [[[[-129]]]], TypeError),
        ("weights", [[[[0.5]]]], TypeError),
        ("weights", [[[[1], [2, 3]]]], TypeError),
        ("weights", "1", TypeError),
        ("biases", [40000], TypeError),
        ("biases", 3, TypeError),
        ("neurons_initial_value", [[[-40000]]], TypeError),
        ("destinations", [], TypeError),
        ("destinations", [{"layer": 1}], TypeError),
        ("destinations", [1, 2], TypeError),
        ("destinations", "ab", TypeError),
    ],
)
def test_what_the_driver_refuses_is_refused(path: str, value: Any, kind: type[Exception]) -> None:
    layer = CnnLayerConfig()
    before = layer.to_json()
    *parents, name = path.split(".")
    holder: Any = layer
    for parent in parents:
        holder = getattr(holder, parent)
    with pytest.raises(kind, match=r"virtual samna|no attribute"):
        setattr(holder, name, value)
    assert layer.to_json() == before


def test_what_the_driver_converts_is_converted() -> None:
    import torch

    layer = CnnLayerConfig()
    layer.leak_enable = torch.tensor(True)
    layer.monitor_enable = np.bool_(True)
    layer.threshold_high = np.int64(300)
    layer.threshold_low = torch.tensor(-5)
    layer.weights = np.ones((1, 2, 3, 3), np.int8)
    assert layer.leak_enable is True
    assert layer.monitor_enable is True
    assert (layer.threshold_high, layer.threshold_low) == (300, -5)
    assert np.shape(layer.weights) == (1, 2, 3, 3)


def test_parts_are_references_and_arrays_are_copies() -> None:
    configuration = SpeckConfiguration()
    layer = configuration.cnn_layers[2]
    layer.weights = [[[[1]]]]
    layer.weights[0][0][0][0] = 9
    layer.dimensions.stride.x = 4
    assert configuration.cnn_layers[2].weights == [[[[1]]]]
    assert configuration.cnn_layers[2].dimensions.stride.x == 4
    configuration.cnn_layers[3] = layer
    layer.threshold_high = 5
    assert configuration.cnn_layers[3].threshold_high == 0
    with pytest.raises(TypeError, match="CnnLayerConfig"):
        configuration.cnn_layers[3] = configuration.dvs_layer
    with pytest.raises(IndexError):
        configuration.cnn_layers[9] = layer


def test_a_monitor_of_the_input_lets_the_sensor_in_until_it_is_told_otherwise() -> None:
    stage = DvsLayerConfig()
    stage.monitor_enable = True
    assert stage.pass_sensor_events is True
    stage.pass_sensor_events = False
    assert stage.pass_sensor_events is False
    stage.raw_monitor_enable = False
    assert stage.pass_sensor_events is False
    stage.raw_monitor_enable = True
    assert stage.pass_sensor_events is True
    stage.pass_sensor_events = False
    assert copy.deepcopy(stage).pass_sensor_events is False


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 300))
def test_json_gives_a_configuration_back(seed: int) -> None:
    configuration = configured(random_program(seed))
    other = SpeckConfiguration()
    other.from_json(configuration.to_json())
    assert other == configuration
    assert other.to_json() == configuration.to_json() == copy.deepcopy(configuration).to_json()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", ValueError),
        ("{", ValueError),
        ("[1]", ValueError),
        ('{"cnn_layer": []}', AttributeError),
        ('{"cnn_layers": []}', TypeError),
        ('{"dvs_layer": {"merge": "yes"}}', TypeError),
        ("[" * 100_000, ValueError),
    ],
)
def test_json_that_is_no_configuration_is_refused(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        SpeckConfiguration().from_json(text)


def test_each_chip_has_its_own_configuration() -> None:
    assert {driver: kind.driver for driver, kind in CONFIGURATIONS.items()} == {
        "speck2e": "speck2e",
        "speck2f": "speck2f",
    }
    assert Speck2eConfiguration.__name__ == "SpeckConfiguration"
    assert SpeckConfiguration() != Speck2eConfiguration()


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_prints_as_virtual_and_refuses_unknown_names(kind: type[Struct]) -> None:
    struct = kind()
    assert "virtual" in repr(struct)
    with pytest.raises(AttributeError):
        struct.nothing_of_the_kind = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="nothing_of_the_kind"):
        kind(nothing_of_the_kind=1)
    assert json.loads(struct.to_json()) == struct.to_dict()


def test_shapes_follow_from_dimensions() -> None:
    dimensions = CnnLayerConfig().dimensions
    dimensions.kernel_size = 3
    dimensions.input_shape = {"feature_count": 2, "size": {"x": 5, "y": 4}}
    dimensions.output_shape = {"feature_count": 6, "size": {"x": 3, "y": 2}}
    assert dimensions.get_weights_array_dimensions() == [6, 2, 3, 3]
    assert dimensions.get_biases_array_dimensions() == [6]
    assert dimensions.get_neuron_states_array_dimensions() == [6, 3, 2]
