"""ONNX operations whose kernel moves over a map, as torch calls: their zeros at the sides need working out."""

from __future__ import annotations

import dataclasses

from spikeport.convert.calls import Value

from .onnx_given import Calls, Given, Problem, Translation


@dataclasses.dataclass(frozen=True)
class _Window:
    """The attributes of a kernel that moves over a map, one number for each axis of the map."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    before: list[int]
    after: list[int]


def _window(given: Given, kernel: list[int] | None) -> _Window | Problem:
    """Return the window over the first operand; zeros at the sides worked out where the file says how to."""
    value = given.operand(0)
    sizes = value.shape[2:] if isinstance(value, Value) else ()
    n_axes = len(sizes)
    kernel = [int(edge) for edge in given.attribute("kernel_shape", kernel or [])]
    stride = [int(step) for step in given.attribute("strides", [1] * n_axes)]
    dilation = [int(gap) for gap in given.attribute("dilations", [1] * n_axes)]
    pads = [int(side) for side in given.attribute("pads", [0] * (2 * n_axes))]
    if not len(kernel) == len(stride) == len(dilation) == n_axes or len(pads) != 2 * n_axes or n_axes not in (1, 2):
        return Problem("", f"a window along {len(kernel)} axes of {sizes}", "Try inputs of [N, C, H, W] or [N, C, L].")
    if min(kernel + stride + dilation, default=1) < 1:
        return Problem("", f"kernel {kernel}, strides {stride}, dilations {dilation}", "Try numbers of 1 or more.")
    before, after = pads[:n_axes], pads[n_axes:]
    auto = given.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        spans = [gap * (edge - 1) + 1 for gap, edge in zip(dilation, kernel, strict=True)]
        total = [
            max((-(-size // step) - 1) * step + span - size, 0)
            for size, step, span in zip(sizes, stride, spans, strict=True)
        ]
        less, more = [zeros // 2 for zeros in total], [zeros - zeros // 2 for zeros in total]
        before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
    elif auto == "VALID":
        before, after = [0] * n_axes, [0] * n_axes
    return _Window(kernel, stride, dilation, before, after)


def _padded(given: Given, window: _Window) -> tuple[Calls, Value, list[int]]:
    """Return a call that pads where sides differ or are negative, the value to read, and the padding left to do."""
    value = given.operand(0)
    if window.before == window.after and min(window.before) >= 0:
        return (), value, window.before
    sides = [side for pair in reversed(list(zip(window.before, window.after, strict=True))) for side in pair]
    sizes = [
        size + first + last for size, first, last in zip(value.shape[2:], window.before, window.after, strict=True)
    ]
    padded = Value(f"{given.call.name}@pad", (*value.shape[:2], *sizes))
    call = dataclasses.replace(
        given.call, op="pad", name=padded.name, kwargs={"input": value, "pad": sides}, shape=padded.shape
    )
    return (call,), padded, [0] * len(sizes)


def read_conv(given: Given) -> Translation:
    """Return the convolution of ``Conv``, behind a padding where its sides differ."""
    weight = given.operand(1)
    if isinstance(weight, Value) or weight is None:
        return Problem("", "its weights depend on the input", "Try weights that training has fixed.")
    window = _window(given, list(weight.shape[2:]))
    if isinstance(window, Problem):
        return window
    if list(weight.shape[2:]) != window.kernel:
        return Problem("", f"weights {list(weight.shape)} for a kernel of {window.kernel}", "Try exporting it again.")
    pad, value, padding = _padded(given, window)
    return (
        *pad,
        *given.becomes(
            "conv2d" if len(window.kernel) == 2 else "conv1d",
            input=value,
            weight=weight,
            bias=given.operand(2),
            stride=window.stride,
            padding=padding,
            dilation=window.dilation,
            groups=int(given.attribute("group", 1)),
        ),
    )


def read_conv_transpose(given: Given) -> Translation:
    """Return the transposed convolution of ``ConvTranspose``."""
    weight = given.operand(1)
    if isinstance(weight, Value) or weight is None:
        return Problem("", "its weights depend on the input", "Try weights that training has fixed.")
    window = _window(given, list(weight.shape[2:]))
    if isinstance(window, Problem):
        return window
    is_plain = given.attribute("auto_pad", "NOTSET") == "NOTSET" and given.attribute("output_shape", None) is None
    if not is_plain or window.before != window.after or min(window.before) < 0:
        return Problem("", "its output is cut off unevenly", "Try the same padding on both sides, and no output_shape.")
    return given.becomes(
        "conv_transpose2d" if len(window.kernel) == 2 else "conv_transpose1d",
        input=given.operand(0),
        weight=weight,
        bias=given.operand(2),
        stride=window.stride,
        padding=window.before,
        output_padding=[int(more) for more in given.attribute("output_padding", [0] * len(window.kernel))],
        dilation=window.dilation,
        groups=int(given.attribute("group", 1)),
    )


def read_average_pool(given: Given) -> Translation:
    """Return the pool of ``AveragePool``, behind a padding where its sides differ."""
    window = _window(given, None)
    if isinstance(window, Problem):
        return window
    if set(window.dilation) != {1}:
        return Problem("", f"its window has gaps: dilations {window.dilation}", "Try a window without gaps.")
    counts = bool(given.attribute("count_include_pad", 0))
    if window.before != window.after and not counts:
        return Problem("", "padded zeros do not count", "Try count_include_pad=True.")
    pad, value, padding = _padded(given, window)
    pool = given.becomes("avg_pool2d", input=value, kernel_size=window.kernel, stride=window.stride, padding=padding)
    return (*pad, dataclasses.replace(pool[0], kwargs={**pool[0].kwargs, "count_include_pad": counts}))


def read_max_pool(given: Given) -> Translation:
    """Return the pool of ``MaxPool``, which is refused with what may stand in its place."""
    window = _window(given, None)
    if isinstance(window, Problem) or window.before != window.after:
        return Problem("max_pool2d", "a maximum over spikes is no sum", "Try nn.AvgPool2d and train again.")
    return given.becomes(
        "max_pool2d",
        input=given.operand(0),
        kernel_size=window.kernel,
        stride=window.stride,
        padding=window.before,
        dilation=window.dilation,
    )
