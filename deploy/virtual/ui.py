"""Events and plot settings of the driver's user interface. Attributes: what sinabs 3.1.3 passes by position."""

from __future__ import annotations

from .events import Variant, variant
from .fields import Flag, Integer, Real, Struct, Text, Things

_U32 = (0, 2**32 - 1)


class DvsEvent(Struct):
    """A pixel that changed, or a spike shown as one."""

    __slots__ = ()
    _kind = "ui::DvsEvent"
    p = Integer(0, 0, 255)
    y = Integer(0, *_U32)
    x = Integer(0, *_U32)
    timestamp = Integer(0, *_U32)


class SpikeCount(Struct):
    """Spikes of one feature in one interval."""

    __slots__ = ()
    _kind = "ui::SpikeCount"
    feature = Integer(0, *_U32)
    count = Integer(0, *_U32)
    timestamp = Integer(0, *_U32)


class Readout(Struct):
    """The feature that was decided on."""

    __slots__ = ()
    _kind = "ui::Readout"
    feature = Integer(0, *_U32)
    timestamp = Integer(0, *_U32)


class Measurement(Struct):
    """A power in milliwatts, which is the unit of the driver's plot."""

    __slots__ = ()
    _kind = "ui::Measurement"
    channel = Integer(0, 0, 255)
    value = Real(0.0)
    timestamp = Integer(0, *_U32)


class ActivityPlotConfiguration(Struct):
    """A map of pixels."""

    __slots__ = ()
    _kind = "ui::ActivityPlotConfiguration"
    width = Integer(0, *_U32)
    height = Integer(0, *_U32)
    title = Text("")
    layout = Things(int, float)


class ReadoutPlotConfiguration(Struct):
    """The picture of the class that was decided on."""

    __slots__ = ()
    _kind = "ui::ReadoutPlotConfiguration"
    title = Text("")
    images = Things(str)
    layout = Things(int, float)


class SpikeCountPlotConfiguration(Struct):
    """Lines of spike counts."""

    __slots__ = ()
    _kind = "ui::SpikeCountPlotConfiguration"
    title = Text("")
    line_count = Integer(0, *_U32)
    line_names = Things(str)
    layout = Things(int, float)
    x_span = Real(25.0)
    label_interval = Real(2.5)
    x_label_format = Text("")
    max_y_rate = Real(1.2)
    show_points = Flag(True)
    default_y_max = Real(10.0)
    y_label = Text("")
    x_label = Text("")


class PowerMeasurementPlotConfiguration(Struct):
    """Lines of powers."""

    __slots__ = ()
    _kind = "ui::PowerMeasurementPlotConfiguration"
    title = Text("")
    line_count = Integer(0, *_U32)
    line_names = Things(str)
    layout = Things(int, float)
    x_span = Real(10.0)
    label_interval = Real(2.0)
    x_label_format = Text("")
    max_y_rate = Real(1.5)
    show_points = Flag(False)
    default_y_max = Real(1.0)
    name = Text("")
    x_label = Text("")
    y_label = Text("")


class FramePlotConfiguration(Struct):
    """Frames of pixels."""

    __slots__ = ()
    _kind = "ui::FramePlotConfiguration"
    width = Integer(0, *_U32)
    height = Integer(0, *_U32)
    title = Text("")
    layout = Things(int, float)


PLOTS: tuple[type[Struct], ...] = (
    ActivityPlotConfiguration,
    ReadoutPlotConfiguration,
    SpikeCountPlotConfiguration,
    PowerMeasurementPlotConfiguration,
    FramePlotConfiguration,
)


class VisualizerConfiguration(Struct):
    """The plots of a window."""

    __slots__ = ()
    _kind = "ui::VisualizerConfiguration"
    plots = Things(*PLOTS)


EVENTS: tuple[type[Struct], ...] = (DvsEvent, SpikeCount, Readout, Measurement, VisualizerConfiguration)

Event: Variant = variant("Event", list(EVENTS), "ui")
