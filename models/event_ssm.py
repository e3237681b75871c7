"""The event state-space model: a classifier that takes single events, their times as they are.

Imported only where it is used, for it imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from .errors import InferenceError
from .ssm.augment import TOY, Augmentation, moving_dots
from .ssm.checkpoint import load_flax_checkpoint
from .ssm.configs import CONFIGS, SsmConfig, config
from .ssm.layers import EPS, EventSsmLayer, linear
from .ssm.predictor import SsmPredictor, load_ssm
from .ssm.tokens import batch_of, sequence_of, tokens_of
from .ssm.training import RECIPES, SsmRecipe, recipe, share_right, train_ssm

if TYPE_CHECKING:
    from .ssm.engine import Mode, OnlineEngine

__all__ = [
    "CONFIGS",
    "RECIPES",
    "TOY",
    "Augmentation",
    "EventSSM",
    "SsmConfig",
    "SsmPredictor",
    "SsmRecipe",
    "batch_of",
    "config",
    "load_flax_checkpoint",
    "load_ssm",
    "moving_dots",
    "recipe",
    "sequence_of",
    "share_right",
    "tokens_of",
    "train_ssm",
]


class EventSSM(nn.Module):
    """Embedding, stages of state-space layers, and a linear head over the mean of the output's rows.

    Token ``c`` with interval ``d`` adds ``E[c]`` after all states have decayed for ``d`` milliseconds; stored with an
    event is the time to the next one, as in the original. ``online()`` returns the same function event by event.
    Padding differs from the original in four ways, none of which changes an answer to events without padding. Its token
    -1 is a row of zeros (there it is the last row of the embedding); a mean by time divides by the time of the rows it
    is over (there by that of all events, also of an incomplete last group); a head of ``"last"`` takes the last row
    without padding (there the last row); statistics of batch normalization leave padding out.
    Source: Schöne et al., Scalable event-by-event processing of neuromorphic sensory signals with deep state-space
    models, arXiv 2404.18508; Smith et al., S5, arXiv 2208.04933.
    """

    not_convertible = (
        "its states are complex numbers that decay with the time between single events, and a gate multiplies them; it "
        "runs on its own engine. Try EventSSM.online(), or `spikeport stream`"
    )
    """Why ``convert`` refuses it."""

    def __init__(self, config: SsmConfig, *, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(config, SsmConfig):
            raise InferenceError(
                f"EventSSM: expected an SsmConfig, found {type(config).__name__}. Try config('dvs/small')."
            )
        rng = np.random.default_rng(seed)
        self.config = config
        rows = rng.normal(0.0, config.d_model**-0.5, (config.vocabulary, config.d_model)).astype(np.float32)
        self.embedding = nn.Embedding(config.vocabulary, config.d_model, _weight=torch.from_numpy(rows))
        self.stages = nn.ModuleList(
            nn.ModuleList(EventSsmLayer(shape, config, rng) for shape in stage) for stage in config.shapes
        )
        self.head = linear(config.shapes[-1][-1].n_out, config.classes, rng)

    def forward(
        self, tokens: torch.Tensor, intervals_ms: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits ``[B, classes]`` of sequences side by side.

        A sequence with fewer events than ``config.downsampling`` has no row of output; its logits are the head's bias.
        Shapes: ``tokens`` and ``intervals_ms`` ``[L, B]``; ``lengths`` ``[B]`` says how many events of each are no
        padding.
        Units: milliseconds.
        Raises: InferenceError where shapes differ, tokens or lengths are out of range, intervals negative or NaN.
        """
        lengths = self._checked(tokens, intervals_ms, lengths)
        is_real = torch.arange(len(tokens), device=tokens.device)[:, None] < lengths
        x = self.embedding(tokens.clamp(min=0)) * is_real[..., None]
        rows, times_ms, is_whole = x, intervals_ms.to(x.dtype) * is_real, is_real
        for stage in self.stages:
            for layer in stage:  # type: ignore[attr-defined]
                rows, times_ms, is_whole = layer(rows, times_ms, is_whole)
        return self.logits(self._pooled(rows, times_ms, is_whole))

    def logits(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return what the head makes of the mean row."""
        found: torch.Tensor = self.head(pooled)
        return found

    def online(self, mode: Mode = "carried") -> OnlineEngine:
        """Return the recurrent engine with the weights as they are now, in float32 on the CPU.

        Law: fed a whole sequence, in chunks of any sizes, it answers as ``forward`` does, to rounding.
        """
        from .ssm.engine import OnlineEngine

        return OnlineEngine(self, mode=mode)

    def _pooled(self, rows: torch.Tensor, times_ms: torch.Tensor, is_whole: torch.Tensor) -> torch.Tensor:
        n_rows = is_whole.sum(0)
        if self.config.head == "last":
            if not len(rows):
                return rows.new_zeros(rows.shape[1:])
            last = rows.gather(0, (n_rows - 1).clamp(min=0)[None, :, None].expand(1, -1, rows.shape[2]))[0]
            return last * (n_rows > 0)[:, None]
        weights = is_whole.to(rows.dtype)
        if self.config.head == "timepool":
            weights = weights * (times_ms + EPS)
        total = weights.sum(0)
        return (rows * weights[..., None]).sum(0) / torch.where(total > 0, total, torch.ones_like(total))[:, None]

    def _checked(self, tokens: torch.Tensor, intervals_ms: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        wrong = []
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.shape != intervals_ms.shape:
            raise InferenceError(
                f"EventSSM: expected whole tokens and intervals [L, B], found {tokens.dtype}{list(tokens.shape)} and "
                f"{list(intervals_ms.shape)}. Try tokens[:, None] for one sequence."
            )
        if lengths is None:
            lengths = torch.full((tokens.shape[1],), len(tokens), device=tokens.device)
        if lengths.shape != tokens.shape[1:] or lengths.is_floating_point():
            raise InferenceError(
                f"EventSSM: lengths: expected {tokens.shape[1]} whole numbers, found {lengths.dtype}"
                f"{list(lengths.shape)}. Try one for each sequence."
            )
        if bool(((lengths < 0) | (lengths > len(tokens))).any()):
            wrong.append(f"lengths of 0 to {len(tokens)}, found {sorted(set(lengths.tolist()))[:4]}")
        is_real = torch.arange(len(tokens), device=tokens.device)[:, None] < lengths
        if bool((is_real & ((tokens < 0) | (tokens >= self.config.vocabulary))).any()):
            low, high = int(tokens[is_real].min()), int(tokens[is_real].max())
            wrong.append(f"tokens of 0 to {self.config.vocabulary - 1}, found {low} to {high}")
        if not bool((torch.isfinite(intervals_ms) & (intervals_ms >= 0))[is_real].all()):
            wrong.append("finite intervals of 0 or more, found others")
        if wrong:
            raise InferenceError(f"EventSSM: expected {'; '.join(wrong)}. Try batch_of([sequence_of(events, config)]).")
        return lengths
