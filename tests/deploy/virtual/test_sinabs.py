"""The vendor's library, unmodified, on virtual boards."""

from __future__ import annotations

import subprocess
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from spikeport.deploy.emulator import Emulator
from spikeport.deploy.virtual import VirtualBoardError, install, program_of, uninstall, unplug
from spikeport.deploy.virtual.configuration import SpeckConfiguration
from spikeport.deploy.virtual.locks import FOLDER_VARIABLE
from spikeport.models.events import Events

from .reference import Layer, simulate

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[types.ModuleType]:
    """The chip back-end of sinabs, imported with two virtual boards in place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("locks")))
        install(["speck2fdevkit", "speck2edevkit"])
        import sinabs.backend.dynapcnn.dynapcnn_network as network

        sleep = time.sleep
        # It sleeps 1 s after each configuration, which is at work here when apply_configuration returns.
        patch.setattr(network.time, "sleep", lambda seconds: sleep(seconds if seconds != 1 else 0))
        import sinabs.backend.dynapcnn as backend

        yield backend
        uninstall()


def spiking(*layers: Any, shape: tuple[int, int, int], **options: Any) -> Any:
    from sinabs.from_torch import from_model

    net = from_model(torch.nn.Sequential(*layers), input_shape=shape, batch_size=1, **options)
    return net.spiking_model


def ones_net(backend: types.ModuleType) -> Any:
    conv = torch.nn.Conv2d(1, 1, 1, bias=False)
    conv.weight.data[:] = 1
    return backend.DynapcnnNetwork(
        spiking(conv, torch.nn.ReLU(), shape=(1, 1, 1)), input_shape=(1, 1, 1), dvs_input=False
    )


def small_net(backend: types.ModuleType, *, dvs_input: bool = False, bias: bool = False) -> Any:
    torch.manual_seed(1)
    layers = (
        torch.nn.Conv2d(2, 4, 3, padding=1, bias=bias),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(4, 8, 3, stride=2, bias=bias),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 3 * 3, 5, bias=bias),
        torch.nn.ReLU(),
    )
    for layer in layers:
        if hasattr(layer, "weight"):
            layer.weight.data += 0.05
    return backend.DynapcnnNetwork(spiking(*layers, shape=(2, 16, 16)), input_shape=(2, 16, 16), dvs_input=dvs_input)


@pytest.mark.parametrize("device", ["speck2fdevkit:0", "speck2edevkit"])
def test_one_event_gives_one_spike_as_on_hardware(backend: types.ModuleType, device: str) -> None:
    net = ones_net(backend)
    net.to(device, layer2core_map={0: 4}, monitor_layers=[-1])
    net.reset_states()
    layer = net.samna_config.cnn_layers[4]
    assert (layer.weights, layer.threshold_high) == ([[[[127]]]], 127)
    factory = backend.chip_factory.ChipFactory(device)
    events = np.array([(0, 0, 0, 0)], [("x", np.uint16), ("y", np.uint16), ("t", np.uint64), ("p", np.bool_)])
    (spike,) = net(factory.xytp_to_events(events, 4, reset_timestamps=False))
    assert (spike.layer, spike.feature, spike.y, spike.x, spike.timestamp) == (4, 0, 0, 0, 0)
    assert "core: 4" in repr(net)


@pytest.mark.filterwarnings("ignore:Layer .* has pooling and is being monitored")
@pytest.mark.parametrize("dvs_input", [False, True])
def test_a_net_does_on_the_board_what_its_configuration_says(backend: types.ModuleType, dvs_input: bool) -> None:
    net = small_net(backend, dvs_input=dvs_input)
    net.to("speck2fdevkit:0", monitor_layers="all")
    program = program_of(net.samna_config)
    rng = np.random.default_rng(0)
    n = 600
    y, x, p, t_us = rng.integers(0, 16, n), rng.integers(0, 16, n), rng.integers(0, 2, n), np.arange(n) * 30
    expected = Emulator(program).run(Events(x, y, p, t_us, program.dvs.input_shape[1:]))
    kinds = sys.modules["samna"].speck2f.event
    columns = [column.tolist() for column in (p, y, x, t_us)]
    entry = net.layer2core_map[min(net.layer2core_map)]
    events = [
        kinds.DvsEvent(*place) if dvs_input else kinds.Spike(entry, *place) for place in zip(*columns, strict=True)
    ]
    found = net(events)
    assert {one.layer for one in found} == set(expected.spikes)
    for core, spikes in expected.spikes.items():
        mine = [(one.timestamp, one.feature, one.y, one.x) for one in found if one.layer == core]
        assert mine == list(zip(*(spikes[name].tolist() for name in ("t_us", "feature", "y", "x")), strict=True))


def test_configurations_are_made_for_every_chip_and_monitor(backend: types.ModuleType) -> None:
    net = small_net(backend, dvs_input=True)
    for device in ("speck2e", "speck2edevkit", "speck2fmodule", "speck2fdevkit"):
        assert net.is_compatible_with(device)
        config = net.make_config(device=device, monitor_layers=["dvs", -1])
        assert config.dvs_layer.monitor_enable
        assert isinstance(config, SpeckConfiguration)
        used = [core for core, layer in enumerate(config.cnn_layers) if layer.weights]
        assert set(used) == set(net.layer2core_map.values())
        ends = [net.layer2core_map[layer] for layer in net.exit_layer_ids]
        assert [core for core in used if config.cnn_layers[core].monitor_enable] == ends

    def modify(config: Any) -> Any:
        config.cnn_layers[net.layer2core_map[min(net.layer2core_map)]].return_to_zero = True
        return config

    assert (
        net.make_config(config_modifier=modify).cnn_layers[net.layer2core_map[min(net.layer2core_map)]].return_to_zero
    )

    def spoil(config: Any) -> Any:
        config.cnn_layers[net.layer2core_map[min(net.layer2core_map)]].dimensions.stride.x = 3
        return config

    with pytest.raises(ValueError, match="not valid for speck2fdevkit"):
        net.make_config(config_modifier=spoil)


def test_states_are_reset_and_randomized(backend: types.ModuleType) -> None:
    net = ones_net(backend)
    net.to("speck2fdevkit:0", layer2core_map={0: 2}, monitor_layers=[-1])
    kinds = sys.modules["samna"].speck2f.event

    def state() -> int:
        net.samna_output_buffer.clear_events()
        net.samna_input_buffer.write([kinds.ReadNeuronValue(2, 0)])
        (value,) = net.samna_output_buffer.get_n_events(1, 5000)
        return int(value.neuron_state)

    net.samna_input_buffer.write([kinds.WriteNeuronValue(2, 0, 55)])
    assert state() == 55
    net.reset_states()
    assert state() == 0
    torch.manual_seed(3)
    net.reset_states(randomize=True)
    assert state() == net.samna_config.cnn_layers[2].neurons_initial_value[0][0][0]


def test_neurons_leak_with_the_slow_clock(backend: types.ModuleType) -> None:
    import sinabs.layers as sl
    from sinabs.backend.dynapcnn.io import calculate_neuron_address, neuron_address_to_cxy

    snn = torch.nn.Sequential(
        torch.nn.Conv2d(1, 1, 1), sl.IAFSqueeze(min_v_mem=-1.0, spike_threshold=1.0, batch_size=1)
    )
    snn[0].weight.data[:], snn[0].bias.data[:] = 1.0, -0.1
    snn(torch.zeros(1, 1, 4, 4))
    snn[1].v_mem.data[:] = 1.0
    net = backend.DynapcnnNetwork(snn, input_shape=(1, 4, 4), dvs_input=False)
    net.to("speck2fdevkit:0", slow_clk_frequency=100)
    kinds = sys.modules["samna"].speck2f.event
    (core,) = net.layer2core_map.values()
    places = [(0, x, y) for x in range(4) for y in range(4)]
    reads = [kinds.ReadNeuronValue(core, calculate_neuron_address(x, y, c, (1, 4, 4))) for c, x, y in places]
    seen: list[int] = [127]
    while seen[-1] > -127:
        net.samna_input_buffer.write(reads)
        answers = net.samna_output_buffer.get_n_events(16, 5000)
        assert [neuron_address_to_cxy(one.address, (1, 4, 4)) for one in answers] == places
        (value,) = {one.neuron_state for one in answers}
        assert value <= seen[-1]
        assert value == -127 or (127 - value) % 13 == 0
        seen.append(value)
        time.sleep(0.01)
    assert len(set(seen)) > 3


def test_rasters_become_events_and_events_rasters(backend: types.ModuleType) -> None:
    net = ones_net(backend)
    net.to("speck2fdevkit:0", layer2core_map={0: 3}, monitor_layers=[-1])
    net.reset_states()
    factory = backend.chip_factory.ChipFactory("speck2fdevkit:0")
    raster = torch.tensor([1.0, 0, 2, 1]).reshape(4, 1, 1, 1)
    events = factory.raster_to_events(raster, layer=3, dt=0.01)
    assert [one.timestamp for one in events] == [0, 20_000, 20_000, 30_000]
    found = net(events)
    assert torch.equal(factory.events_to_raster(found, dt=0.01, shape=(1, 1, 1)), raster)
    xytp = backend.io.events_to_xytp(found, 3)
    assert xytp["t"].tolist() == [0, 20_000, 20_000, 30_000]


def test_specksim_runs_a_sequential_net_as_the_reference_does(backend: types.ModuleType) -> None:
    import sinabs.backend.dynapcnn.specksim as specksim

    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2, 3, 3, padding=1, bias=False)
    conv.weight.data = torch.round(conv.weight.data * 64) / 32  # sums of them are exact
    snn = spiking(conv, torch.nn.ReLU(), torch.nn.AvgPool2d(2), shape=(2, 8, 8))
    net = specksim.from_sequential(snn, input_shape=(2, 8, 8))
    net.initial_sleep_duration, net.subsequent_sleep_duration = 0.3, 0.05
    rng = np.random.default_rng(0)
    places = [(int(rng.integers(2)), int(rng.integers(8)), int(rng.integers(8)), t) for t in range(200)]
    net.add_monitor(0)
    found = net(np.array([(x, y, t, p) for p, y, x, t in places], net.output_dtype))
    layer = Layer(conv.weight.detach().numpy(), (2, 8, 8), (1, 1), (1, 1), 1.0, -1.0, (2, 2))
    spikes, pooled, state = simulate(layer, places)
    assert len(pooled) > 20
    assert [(p, y, x, t) for x, y, t, p in found.tolist()] == pooled
    assert [(p, y, x, t) for x, y, t, p in net.read_monitor(0).tolist()] == spikes
    assert np.array_equal(net.read_spiking_layer_states(0), state)
    net.reset_states()
    assert not np.any(net.read_spiking_layer_states(0))


def test_five_events_of_a_fifth_give_one_spike(backend: types.ModuleType) -> None:
    import sinabs.backend.dynapcnn.specksim as specksim

    conv = torch.nn.Conv2d(1, 1, 1, bias=False)
    conv.weight.data[:] = 0.2
    net = specksim.from_sequential(spiking(conv, torch.nn.ReLU(), shape=(1, 1, 1)), input_shape=(1, 1, 1))
    net.initial_sleep_duration = 0.2
    assert net(np.array([(0, 0, t, 0) for t in range(5)], net.output_dtype)).tolist() == [(0, 0, 4, 0)]


def test_a_board_that_is_lost_in_the_middle_of_a_run_is_told(backend: types.ModuleType) -> None:
    net = ones_net(backend)
    net.to("speck2edevkit:0", layer2core_map={0: 3}, monitor_layers=[-1])
    kind = sys.modules["samna"].speck2e.event.Spike
    read = net.samna_output_buffer.get_events

    def read_and_unplug() -> Any:
        found = read()
        unplug(net.samna_device)
        return found

    net.samna_output_buffer.get_events = read_and_unplug
    with pytest.raises(VirtualBoardError, match="lost: it was unplugged"):
        net([kind(3, 0, 0, 0, 0)])
    with pytest.raises(OSError, match="lost: it was unplugged"):  # it remembers boards that it has seen
        net.to("speck2edevkit:0")
    sys.modules["samna"].virtual.plug_in("speck2edevkit:0")


VIEWED = """
import time
from spikeport.deploy.virtual import install
samna = install(["speck2fdevkit"])
import torch
from sinabs.from_torch import from_model
from sinabs.backend.dynapcnn import DynapcnnNetwork, DynapcnnVisualizer
ann = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, bias=False), torch.nn.ReLU())
snn = from_model(ann, input_shape=(2, 16, 16), batch_size=1).spiking_model
net = DynapcnnNetwork(snn, input_shape=(2, 16, 16), dvs_input=True)
net.to("speck2fdevkit:0", monitor_layers=["dvs", -1])
visualizer = DynapcnnVisualizer(add_power_monitor_plot=True, add_readout_plot=True, readout_images=["0_a.png"] * 4,
                                power_monitor_number_of_items=5, spike_collection_interval=100)
visualizer.connect(net)
kind = samna.speck2f.event.DvsEvent
net.samna_input_buffer.write([kind(i % 2, i % 16, i // 16 % 16, 0) for i in range(2000)])
time.sleep(0.5)
visualizer.stop()
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_visualizer_connects_and_a_viewer_counts_what_it_is_sent() -> None:
    done = subprocess.run([sys.executable, "-c", VIEWED], capture_output=True, text=True, timeout=100, check=True)
    assert "virtual samnagui: no window" in done.stdout
    assert "Set up completed!" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert "ActivityPlotConfiguration, SpikeCountPlotConfiguration, ReadoutPlotConfiguration, PowerMeasurement" in last
    assert "'DvsEvent': 2000" in last
    assert "'Readout'" in last
    assert "'Measurement'" in last
