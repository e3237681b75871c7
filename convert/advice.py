"""What to say of operations without spiking counterpart: why, what to try, and what may stand in their place."""

from __future__ import annotations

from .calls import Call, common
from .graph import Node, Relu, Skip, Unknown

_SEQUENTIAL = "Try to write it as Conv2d, Linear, BatchNorm2d, ReLU, AvgPool2d, sums and concatenations."
_RELU = "Try nn.ReLU and train again."
_NEGATIVE = "negative outputs cannot be spikes"
_NO_SPIKES = "no spiking counterpart"
_LEAVE_OUT = "Try to leave it out: the class with the most spikes is the same."
_NORM = "its statistics are those of each sample, so it cannot be folded into weights"
_BATCHNORM = "Try nn.BatchNorm2d and train again."
_ATTENTION = "a product of values that both depend on the input"
_PART = "takes a part of its input"
_CONVS = "Try one convolution for each part."
_UPSAMPLE = "Try nn.ConvTranspose2d(C, C, s, stride=s, groups=C) with weights of 1: the same as nearest."
_TIME = "keeps a state of its own over time"

_ADVICE: dict[str, tuple[str, str]] = {
    "softmax": (_NO_SPIKES, _LEAVE_OUT),
    "log_softmax": (_NO_SPIKES, _LEAVE_OUT),
    "leaky_relu": (_NEGATIVE, _RELU),
    "rrelu": (_NEGATIVE, _RELU),
    "prelu": (_NEGATIVE, _RELU),
    "elu": (_NEGATIVE, _RELU),
    "celu": (_NEGATIVE, _RELU),
    "selu": (_NEGATIVE, _RELU),
    "gelu": (_NEGATIVE, _RELU),
    "silu": (_NEGATIVE, _RELU),
    "mish": (_NEGATIVE, _RELU),
    "hardswish": (_NEGATIVE, _RELU),
    "tanh": (_NEGATIVE, _RELU),
    "softsign": (_NEGATIVE, _RELU),
    "sigmoid": (_NO_SPIKES, _RELU),
    "hardsigmoid": (_NO_SPIKES, _RELU),
    "softplus": (_NO_SPIKES, _RELU),
    "hardtanh": ("its lower bound is not 0", "Try nn.ReLU, or nn.Hardtanh(0, c), and train again."),
    "clamp": ("its lower bound is not 0", "Try nn.ReLU, or x.clamp(min=0), and train again."),
    "threshold": ("its threshold and value are not both 0", _RELU),
    "group_norm": (_NORM, _BATCHNORM),
    "instance_norm": (_NORM, _BATCHNORM),
    "layer_norm": (_NORM, _BATCHNORM),
    "rms_norm": (_NORM, _BATCHNORM),
    "local_response_norm": (_NORM, _BATCHNORM),
    "normalize": (_NORM, _BATCHNORM),
    "interpolate": ("an upsampling", _UPSAMPLE),
    "upsample_nearest2d": ("an upsampling", _UPSAMPLE),
    "upsample_bilinear2d": ("an upsampling", _UPSAMPLE),
    "pixel_shuffle": ("moves channels to rows and columns", "Try nn.ConvTranspose2d with the same stride."),
    "pixel_unshuffle": ("moves rows and columns to channels", "Try nn.Conv2d with the same stride."),
    "channel_shuffle": ("changes the order of channels", "Try a 1x1 nn.Conv2d that does the same."),
    "lstm": (_TIME, "Try convolutions, or a recurrent spiking net trained as one."),
    "gru": (_TIME, "Try convolutions, or a recurrent spiking net trained as one."),
    "rnn_tanh": (_TIME, "Try convolutions, or a recurrent spiking net trained as one."),
    "rnn_relu": (_TIME, "Try convolutions, or a recurrent spiking net trained as one."),
    "multi_head_attention_forward": (_ATTENTION, "Try convolutions."),
    "scaled_dot_product_attention": (_ATTENTION, "Try convolutions."),
    "bmm": (_ATTENTION, "Try convolutions."),
    "einsum": ("a general product", "Try nn.Linear or nn.Conv2d that does the same."),
    "embedding": ("looks values up by index", "Try nn.Linear over one-hot inputs."),
    "getitem": (_PART, _CONVS),
    "chunk": (_PART, _CONVS),
    "split": (_PART, _CONVS),
    "split_with_sizes": (_PART, _CONVS),
    "slice": (_PART, _CONVS),
    "select": (_PART, _CONVS),
    "narrow": (_PART, _CONVS),
    "unbind": (_PART, _CONVS),
    "setitem": ("writes into a part of its input", "Try nn.ZeroPad2d or torch.cat."),
    "stack": ("adds an axis", "Try torch.cat along axis 1."),
    "permute": ("changes the order of axes", "Try to keep channels first."),
    "transpose": ("changes the order of axes", "Try to keep channels first."),
    "roll": ("moves pixels around the border", "Try a convolution with zeros for padding."),
    "mul": ("a product of two values", "Try a product with numbers that training has fixed."),
    "sub": ("a difference of two values", "Try a sum, with the sign in the weights before it."),
    "div": ("a quotient", "Try a product with numbers that training has fixed."),
    "add": ("a sum of values of different shapes", "Try maps of one shape."),
    "maximum": ("a maximum over values is no sum", "Try nn.ReLU for a maximum with 0."),
    "max": ("a maximum over values is no sum", "Try a global average pool."),
    "amax": ("a maximum over values is no sum", "Try a global average pool."),
    "dropout": ("drops in evaluation too", "Try training=self.training, or nn.Dropout."),
}
"""By the plain name of a torch function."""

_LAYERS: dict[str, tuple[str, str]] = {
    "MultiheadAttention": _ADVICE["multi_head_attention_forward"],
    "TransformerEncoderLayer": _ADVICE["multi_head_attention_forward"],
    "TransformerEncoder": _ADVICE["multi_head_attention_forward"],
    "Transformer": _ADVICE["multi_head_attention_forward"],
    "LSTMCell": _ADVICE["lstm"],
    "GRUCell": _ADVICE["gru"],
    "RNNCell": _ADVICE["lstm"],
}
"""By the class name of a torch layer that is several functions."""

_SUBSTITUTES = {
    "max_pool": "maxpool=avgpool",
    "adaptive_max_pool": "adaptivemaxpool=adaptiveavgpool",
    "softmax": "softmax=identity",
    "log_softmax": "logsoftmax=identity",
    **{
        name: f"{name.replace('_', '')}=relu"
        for name in (
            *("leaky_relu", "rrelu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "tanh"),
            *("softsign", "sigmoid", "hardsigmoid", "softplus", "hardtanh"),
        )
    },
}
"""Names of replacements by the plain name of a torch function."""

REPLACEMENTS: tuple[str, ...] = tuple(_SUBSTITUTES.values())
"""What ``--replace`` takes."""


def substitute(op: str, node: Node | None) -> tuple[str, Node] | None:
    """Return the name of a replacement with the node, None where there is none."""
    return None if node is None else (_SUBSTITUTES[op], node)


def unknown(call: Call, reason: str = "", fix: str = "", instead: tuple[str, Node] | None = None) -> tuple[Unknown]:
    """Return the node that refuses a call; without a reason, with what is known of its function."""
    advice = _LAYERS.get(call.label) or _ADVICE.get(call.op)
    known = advice or ("no spiking counterpart is known", _SEQUENTIAL)
    where = f" ({call.where})" if call.where else ""
    if instead is None and not reason:
        instead = _stand_in(call)
    return (Unknown(*common(call), f"{reason or known[0]}{where}", fix or known[1], instead),)


def _stand_in(call: Call) -> tuple[str, Node] | None:
    name = _SUBSTITUTES.get(call.op, "")
    if name.endswith("=relu"):
        return name, Relu(*common(call))
    return (name, Skip(*common(call))) if name.endswith("=identity") else None
