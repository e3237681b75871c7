"""The configuration tree of a virtual Speck: the attributes, types and defaults of the driver's.

Two kinds of limits: what a register cannot hold is a TypeError when it is assigned; what the chip cannot do with a
value that a register can hold is found by ``validate_configuration``. Names, meanings, defaults and ranges: public
documentation of samna 0.48 (``SAM`` in ``chips.py``), and what sinabs 3.1.3 assigns. Widths of registers: the data
widths of the chip (weights 8 bits; bias, state and thresholds 16 bits); 32 bits where none is published.
"""

from __future__ import annotations

from typing import ClassVar

from .fields import Flag, Integer, Part, Parts, Struct, Tensor

INT8, INT16, INT32, UINT8, UINT16 = (-128, 127), (-32768, 32767), (-(2**31), 2**31 - 1), (0, 255), (0, 65535)
UINT32 = (0, 2**32 - 1)

N_CORES, READOUT_LAYER, DVS_LAYER = 9, 12, 13
"""Ids of layers beyond the cores: destination 12 is the readout block, monitored events of layer 13 are the input's."""

SENSOR_EDGE = 128


class Vec2(Struct):
    """Two numbers, one for each axis."""

    __slots__ = ()
    x = Integer(0, *INT32)
    y = Integer(0, *INT32)


class Mirror(Struct):
    """Which axes are turned around."""

    __slots__ = ()
    x = Flag(False)
    y = Flag(False)


class IOShape(Struct):
    """The maps that go into a core, or come out of it."""

    __slots__ = ()
    feature_count = Integer(1, *INT32)
    size = Part(Vec2, x=1, y=1)


class CnnLayerDimensions(Struct):
    """Maps, kernel, stride and padding of a core; kernels are square."""

    __slots__ = ()
    input_shape = Part(IOShape)
    output_shape = Part(IOShape)
    kernel_size = Integer(1, *INT32)
    stride = Part(Vec2, x=1, y=1)
    padding = Part(Vec2)

    def get_weights_array_dimensions(self) -> list[int]:
        """Return the shape of ``weights``: features, channels, columns, rows."""
        edge = self.kernel_size
        return [self.output_shape.feature_count, self.input_shape.feature_count, edge, edge]

    def get_biases_array_dimensions(self) -> list[int]:
        """Return the shape of ``biases``: features."""
        return [self.output_shape.feature_count]

    def get_neuron_states_array_dimensions(self) -> list[int]:
        """Return the shape of ``neurons_initial_value``: features, columns, rows."""
        size = self.output_shape.size
        return [self.output_shape.feature_count, size.x, size.y]


class CnnLayerDestination(Struct):
    """Where the spikes of a core go: with their features shifted and their coordinates divided."""

    __slots__ = ()
    enable = Flag(False)
    layer = Integer(0, *UINT8)
    pooling = Integer(1, *UINT8)
    feature_shift = Integer(0, *INT32)


class CnnLayerConfig(Struct):
    """One core. Arrays are ``weights[feature][channel][x][y]`` and ``neurons_initial_value[feature][x][y]``.

    A core is in use as soon as its weights are there; arrays of a core that is not used are empty.
    """

    __slots__ = ()
    dimensions = Part(CnnLayerDimensions)
    weights = Tensor(4, *INT8)
    biases = Tensor(1, *INT16)
    neurons_initial_value = Tensor(3, *INT16)
    threshold_high = Integer(0, *INT16)
    threshold_low = Integer(-1, *INT16)
    return_to_zero = Flag(False)
    leak_enable = Flag(False)
    leak_internal_slow_clk_enable = Flag(False)
    monitor_enable = Flag(False)
    input_congestion_balancer_enable = Flag(False)
    output_decimator_enable = Flag(False)
    output_decimator_interval = Integer(0, *UINT8)
    destinations = Parts(CnnLayerDestination, 2)


class DvsLayerDestination(Struct):
    """Where the events of the input stage go."""

    __slots__ = ()
    enable = Flag(False)
    layer = Integer(0, *UINT8)


class DvsLayerConfig(Struct):
    """The input stage: merge, pool, region, mirror, diagonal swap.

    Setting one of the monitors also lets the events of the sensor in, until ``pass_sensor_events`` is set again.
    """

    __slots__ = ()
    merge = Flag(False)
    mirror = Part(Mirror)
    mirror_diagonal = Flag(False)
    origin = Part(Vec2)
    cut = Part(Vec2, x=SENSOR_EDGE - 1, y=SENSOR_EDGE - 1)
    pooling = Part(Vec2, x=1, y=1)
    on_channel = Flag(True)
    off_channel = Flag(True)
    monitor_enable = Flag(False)
    raw_monitor_enable = Flag(False)
    pass_sensor_events = Flag(False)
    destinations = Parts(DvsLayerDestination, 2)

    def _after(self, name: str) -> None:
        if name in ("monitor_enable", "raw_monitor_enable") and getattr(self, name):
            self.pass_sensor_events = True


class DvsFilterConfig(Struct):
    """The noise filter in front of the input stage."""

    __slots__ = ()
    enable = Flag(False)
    filter_size = Part(Vec2, x=1, y=1)
    hot_pixel_filter_enable = Flag(True)
    internal_slow_clk = Flag(False)
    low_pass_mode_enable = Flag(False)
    threshold = Integer(5, *UINT16)


class ReadoutConfig(Struct):
    """The readout block, which decides on one of 15 classes at each tick of the slow clock."""

    __slots__ = ()
    enable = Flag(False)
    internal_slow_clk = Flag(False)
    low_pass_filter_disable = Flag(False)
    low_pass_filter32_not16 = Flag(False)
    monitor_enable = Flag(False)
    readout_pin_monitor_enable = Flag(False)
    output_mode_sel = Integer(0, *UINT8)
    output_neuron_num = Integer(0, *UINT8)
    override_threshold_max = Flag(False)
    readout_configuration_sel = Integer(0, *UINT8)
    threshold = Integer(0, *UINT16)


class FactoryDvsFilter(Struct):
    """Clock of the noise filter."""

    __slots__ = ()
    filter_clk_enable = Flag(False)


class FactoryDvsLayer(Struct):
    """Currents of the sensor, which the virtual board does not have: kept and ignored."""

    __slots__ = ()
    current_control_p0 = Integer(0, *UINT8)
    current_control_p3 = Integer(0, *UINT8)
    current_control_p4 = Integer(0, *UINT8)
    current_control_p5 = Integer(0, *UINT8)
    current_control_p6 = Integer(0, *UINT8)
    current_out1 = Integer(0, *UINT8)
    current_out2 = Integer(0, *UINT8)
    current_out3 = Integer(0, *UINT8)


class FactoryConfig(Struct):
    """Settings of the factory, as far as their names are public; ``internal_slow_clk_divider`` is 14..17."""

    __slots__ = ()
    internal_slow_clk_divider = Integer(17, *UINT8)
    monitor_dual_channel = Flag(False)
    fast_output = Flag(False)
    io_sel = Integer(0, *UINT8)
    dvs_layer = Part(FactoryDvsLayer)
    dvs_filter = Part(FactoryDvsFilter)


class DebugConfig(Struct):
    """Settings for debugging; none of their names is public."""

    __slots__ = ()


class SpeckConfiguration(Struct):
    """Everything that a Speck is configured with; ``driver`` is the name of its module of the driver."""

    __slots__ = ()
    driver: ClassVar[str] = "speck2f"
    cnn_layers = Parts(CnnLayerConfig, N_CORES)
    dvs_layer = Part(DvsLayerConfig)
    dvs_filter = Part(DvsFilterConfig)
    readout = Part(ReadoutConfig)
    factory_config = Part(FactoryConfig)
    debug_config = Part(DebugConfig)


class Speck2eConfiguration(SpeckConfiguration):
    """The configuration of a Speck 2e: the same tree, but no other chip takes it."""

    __slots__ = ()
    driver: ClassVar[str] = "speck2e"


Speck2eConfiguration.__name__ = Speck2eConfiguration.__qualname__ = "SpeckConfiguration"

CONFIGURATIONS: dict[str, type[SpeckConfiguration]] = {"speck2f": SpeckConfiguration, "speck2e": Speck2eConfiguration}

CLASSES: tuple[type[Struct], ...] = (
    CnnLayerConfig,
    CnnLayerDestination,
    CnnLayerDimensions,
    DebugConfig,
    DvsFilterConfig,
    DvsLayerConfig,
    DvsLayerDestination,
    FactoryConfig,
    IOShape,
    ReadoutConfig,
    Vec2,
)
"""What a module ``configuration`` of the driver offers besides ``SpeckConfiguration``."""
