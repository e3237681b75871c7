"""Where the states of an event state-space model start: HiPPO-LegS in blocks, and matrices in its eigenvectors."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .configs import LayerShape, SsmConfig

Complexes = NDArray[np.complex128]

_CUT = 0.87962566103423978
"""Standard deviation of a normal distribution that is cut off at two of its own."""


def legs_block(size: int) -> tuple[Complexes, Complexes]:
    """Return eigenvalues and eigenvectors of a HiPPO-LegS matrix made normal by adding its term of rank 1.

    Law: ``V diag(lambda) V^H`` is that matrix, ``V`` unitary; all real parts are -1/2.
    Source: Gu et al., HiPPO (2020), appendix D; Gupta et al., arXiv 2206.11893.
    """
    n = np.arange(size)
    root = np.sqrt(2.0 * n + 1.0)
    legs = -(np.tril(np.outer(root, root)) - np.diag(n))
    low_rank = np.sqrt(n + 0.5)
    normal = legs + np.outer(low_rank, low_rank)
    imaginary, vectors = np.linalg.eigh(normal * -1j)
    return np.mean(np.diagonal(normal)) + 1j * imaginary, np.asarray(vectors, np.complex128)


def start_values(shape: LayerShape, config: SsmConfig, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Return the parameters of a layer's state space at the start.

    Shapes: ``lambda_re``, ``lambda_im``, ``log_step`` ``[P]``; ``b`` ``[P, H_in, 2]`` and ``c`` ``[H_out, P, 2]``, real
    and imaginary; ``d`` ``[H]``, or ``[H_out, H_in]`` where widths differ. ``P`` is half of the states with
    ``conj_sym``: the others are conjugates.
    """
    eigenvalues, vectors = legs_block(config.block_size)
    kept = config.block_size // 2 if config.conj_sym else config.block_size
    n_blocks = shape.n_start // config.block_size
    values = np.tile(eigenvalues[:kept], n_blocks)
    basis = np.kron(np.eye(n_blocks), vectors[:, :kept])
    b = basis.conj().T @ truncated(rng, (shape.n_start, shape.n_in), 1.0 / shape.n_start)
    if config.c_init == "complex_normal":
        parts = rng.normal(0.0, math.sqrt(0.5), (shape.n_out, shape.n_states, 2))
        c = parts[..., 0] + 1j * parts[..., 1]
    else:
        # The fan-in of an array [H_out, P, 2] is H_out * P, of one drawn row by row only P: as in the original.
        fan_in = shape.n_start * (shape.n_out if config.c_init == "lecun_normal" else 1)
        parts = truncated(rng, (shape.n_out, shape.n_start, 2), 1.0 / fan_in)
        c = (parts[..., 0] + 1j * parts[..., 1]) @ basis
    if shape.n_in == shape.n_out:
        d = rng.normal(0.0, 1.0, shape.n_in)
    else:
        d = truncated(rng, (shape.n_out, shape.n_in), 2.0 / (shape.n_in + shape.n_out))
    steps = rng.uniform(math.log(config.dt_min), math.log(config.dt_max), shape.n_states)
    found = {
        "lambda_re": values.real,
        "lambda_im": values.imag,
        "log_step": steps,
        "b": np.stack([b.real, b.imag], axis=-1),
        "c": np.stack([c.real, c.imag], axis=-1),
        "d": d,
    }
    return {name: np.asarray(array, np.float32) for name, array in found.items()}


def truncated(rng: np.random.Generator, shape: tuple[int, ...], variance: float) -> NDArray[np.float64]:
    """Return normal numbers of a variance, none beyond two deviations of the distribution before it was cut off."""
    drawn = rng.normal(size=shape)
    while (beyond := np.abs(drawn) > 2.0).any():
        drawn[beyond] = rng.normal(size=int(beyond.sum()))
    return np.asarray(drawn * math.sqrt(variance) / _CUT)
