"""What an event state-space model is, without its weights: the record, and the published ones by name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from spikeport.models.errors import InferenceError, ModelNameError
from spikeport.models.nearest import unknown

Discretization = Literal["async", "zoh", "dirac"]
Pooling = Literal["last", "avgpool", "timepool"]
Head = Literal["pool", "timepool", "last"]
TokenMap = Literal["raster", "product", "channel"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "discretization": ("async", "zoh", "dirac"),
    "pooling": ("last", "avgpool", "timepool"),
    "head": ("pool", "timepool", "last"),
    "tokens": ("raster", "product", "channel"),
    "norm": ("layer", "batch"),
    "c_init": ("lecun_normal", "trunc_standard_normal", "complex_normal"),
}


@dataclasses.dataclass(frozen=True)
class SsmConfig:
    """What an event state-space model is.

    ``sensor_size`` is ``(height, width)`` of the events; ``tokens`` how an event becomes the index of a row of the
    embedding: ``"raster"`` is ``(p * height + y) * width + x``, without collisions; ``"product"`` is
    ``x * y + height * width * p``, which published weights for cameras were trained with: a product, so that different
    pixels share a row. ``"channel"`` is ``x`` alone, for audio. ``d_model`` is the width of a layer, ``d_ssm`` its
    number of states (half of them are kept with ``conj_sym``), in blocks of ``block_size``. The first layer of each of
    ``n_stages`` stages of ``n_layers`` takes one of ``stride`` steps; ``expansion`` widens later stages. A head of
    ``"pool"`` is the mean over the output's rows, ``"timepool"`` the mean by time, ``"last"`` the last row.
    Units: ``dt_min`` and ``dt_max`` bound the time steps at the start, relative to milliseconds.
    Raises: InferenceError for values that make no such model, all of them at once.
    """

    vocabulary: int
    classes: int
    sensor_size: tuple[int, int]
    tokens: TokenMap = "raster"
    d_model: int = 128
    d_ssm: int = 128
    block_size: int = 16
    n_stages: int = 2
    n_layers: int = 3
    stride: int = 16
    expansion: int = 1
    pooling: Pooling = "timepool"
    head: Head = "timepool"
    discretization: Discretization = "async"
    conj_sym: bool = False
    clip_eigs: bool = False
    norm: Literal["layer", "batch"] = "layer"
    prenorm: bool = True
    bn_momentum: float = 0.95
    dropout: float = 0.0
    dt_min: float = 0.001
    dt_max: float = 0.1
    step_rescale: float = 1.0
    c_init: Literal["lecun_normal", "trunc_standard_normal", "complex_normal"] = "lecun_normal"

    def __post_init__(self) -> None:
        wrong = [
            f"{name}: expected a whole number of 1 or more, found {getattr(self, name)!r}"
            for name in (
                "vocabulary classes d_model d_ssm block_size n_stages n_layers stride expansion".split()  # noqa: SIM905
            )
            if not _is_count(getattr(self, name))
        ]
        wrong += [
            f"{name}: expected one of {', '.join(known)}, found {getattr(self, name)!r}"
            for name, known in _CHOICES.items()
            if getattr(self, name) not in known
        ]
        size: Any = self.sensor_size
        if not (isinstance(size, (tuple, list)) and len(size) == 2 and all(map(_is_count, size))):
            wrong.append(f"sensor_size: expected (height, width), found {size!r}")
        if not wrong:
            object.__setattr__(self, "sensor_size", tuple(size))
            wrong += self._misfits()
        if wrong:
            raise InferenceError(f"event SSM: {'; '.join(wrong)}. Try config('dvs/small') as it is.")

    def _misfits(self) -> list[str]:
        wrong = []
        if self.d_ssm % self.block_size:
            wrong.append(f"d_ssm: expected a multiple of the block size {self.block_size}, found {self.d_ssm}")
        if self.conj_sym and self.block_size % 2:
            wrong.append(f"block_size: expected an even one with conj_sym, found {self.block_size}")
        if not (math.isfinite(self.dt_max) and 0 < self.dt_min <= self.dt_max):
            wrong.append(f"dt_min, dt_max: expected 0 < dt_min <= dt_max, found {self.dt_min}, {self.dt_max}")
        if not (math.isfinite(self.step_rescale) and self.step_rescale > 0):
            wrong.append(f"step_rescale: expected a number above 0, found {self.step_rescale}")
        shares = {name: getattr(self, name) for name in ("dropout", "bn_momentum")}
        wrong += [f"{name}: expected 0 to below 1, found {one}" for name, one in shares.items() if not 0 <= one < 1]
        if self.vocabulary < self.n_tokens:
            wrong.append(f"vocabulary: expected at least {self.n_tokens} for its tokens, found {self.vocabulary}")
        return wrong

    @property
    def n_tokens(self) -> int:
        """Number of tokens that events of the sensor can become: one more than the largest."""
        height, width = self.sensor_size
        if self.tokens == "channel":
            return width
        top = (height - 1) * (width - 1) if self.tokens == "product" else height * width - 1
        return height * width + top + 1

    @property
    def downsampling(self) -> int:
        """Events of one row of the output, the number that a decision takes at least."""
        return int(self.stride**self.n_stages)

    @property
    def shapes(self) -> tuple[tuple[LayerShape, ...], ...]:
        """The layers of each stage.

        As in the original for up to three stages; a fourth of an expanding model has no working form there.
        """
        stages, width, states = [], self.d_model, self.d_ssm
        for stage in range(self.n_stages):
            out = self.d_model * self.expansion ** (0 if stage == 0 else max(1, stage - 1))
            kept = states // 2 if self.conj_sym else states
            first = LayerShape(width, out, states, kept, self.stride)
            stages.append((first, *(LayerShape(out, out, states, kept, 1) for _ in range(self.n_layers - 1))))
            width, states = out, states * self.expansion
        return tuple(stages)


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """Widths of one layer: inputs, outputs, states at the start and those that are kept, and its stride."""

    n_in: int
    n_out: int
    n_start: int
    n_states: int
    stride: int


_CAMERA = {"sensor_size": (128, 128), "tokens": "product", "vocabulary": 2 * 128 * 128}
_COCHLEA = {"sensor_size": (1, 700), "tokens": "channel", "vocabulary": 700, "dt_min": 0.004, "block_size": 8}

CONFIGS: dict[str, dict[str, Any]] = {
    "dvs/small": {**_CAMERA, "classes": 11, "expansion": 2, "clip_eigs": True, "dropout": 0.25},
    "shd/tiny": {
        **_COCHLEA,
        "classes": 20,
        "d_model": 16,
        "d_ssm": 16,
        "n_stages": 1,
        "n_layers": 6,
        "stride": 32,
        "dropout": 0.1,
    },
    "shd/medium": {
        **_COCHLEA,
        "classes": 20,
        "d_model": 96,
        "stride": 8,
        "pooling": "avgpool",
        "head": "pool",
        "dropout": 0.23,
    },
    "ssc/medium": {
        **_COCHLEA,
        "classes": 35,
        "d_model": 96,
        "stride": 8,
        "block_size": 16,
        "dt_min": 0.0015,
        "expansion": 2,
        "conj_sym": True,
        "norm": "batch",
        "pooling": "avgpool",
        "head": "pool",
        "dropout": 0.23,
    },
}
"""The published models, by name: what differs from the record's own values."""


def config(name: str, **changes: Any) -> SsmConfig:
    """Return a published model's configuration, with ``changes`` to its fields, such as ``classes=10``.

    Source: configuration files of event-ssm (Schöne et al., arXiv 2404.18508).
    Raises: ModelNameError for an unknown name or field; InferenceError for values that make no model.
    """
    if name not in CONFIGS:
        raise ModelNameError(unknown("event SSM config", name, CONFIGS))
    fields = [field.name for field in dataclasses.fields(SsmConfig)]
    for field in changes:
        if field not in fields:
            raise ModelNameError(unknown(f"event SSM config '{name}': field", field, fields))
    return SsmConfig(**{**CONFIGS[name], **changes})


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
