"""The event state-space model in plain JAX, in a process of its own: what the original's tutorial computes.

Run by an interpreter that has JAX, which need not be the one that has spikeport: nothing of ours is imported.
``python jaxssm.py FILE.npz`` reads weights, tokens and intervals, then takes a line of JSON for each run on stdin and
answers with one: ``{"run": "loop" or "scan", "chunk": 256}`` to ``{"wall_s": ..., "logits": ...}``, those of all chunks
if ``"keep"`` is given. Each chunk starts from states at rest, as in the tutorial.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any


def main(path: str) -> None:
    """Answer the runs that are asked for."""
    np = importlib.import_module("numpy")
    jax = importlib.import_module("jax")
    jnp = importlib.import_module("jax.numpy")
    content = dict(np.load(path, allow_pickle=False))
    config = json.loads(str(content.pop("config")))
    tokens, intervals = jnp.asarray(content.pop("tokens")), jnp.asarray(content.pop("intervals_ms"))
    weights = {name: jnp.asarray(value) for name, value in content.items()}
    model = _model(jax, jnp, config)
    one = jax.jit(model)

    def scan_chunks(weights: Any, tokens: Any, intervals: Any) -> Any:
        return jax.lax.scan(lambda none, given: (none, model(weights, *given)), None, (tokens, intervals))[1]

    scan = jax.jit(scan_chunks)
    print(json.dumps({"jax": jax.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        n_chunks = len(tokens) // asked["chunk"]
        shape = n_chunks, asked["chunk"]
        parts = tokens[: shape[0] * shape[1]].reshape(shape), intervals[: shape[0] * shape[1]].reshape(shape)
        pieces = [(parts[0][k], parts[1][k]) for k in range(n_chunks)]
        jax.block_until_ready(pieces)
        started = time.perf_counter()
        if asked["run"] == "scan":
            logits = scan(weights, *parts).block_until_ready()
        else:
            logits = [one(weights, *piece).block_until_ready() for piece in pieces]
        wall_s = time.perf_counter() - started
        kept = np.asarray(logits).tolist() if asked.get("keep") else []
        print(json.dumps({"wall_s": wall_s, "logits": kept}), flush=True)


def _model(jax: Any, jnp: Any, config: Any) -> Any:
    """Return the function of weights, tokens and intervals that gives the logits."""

    def combine(first: Any, second: Any) -> Any:
        return first[0] * second[0], second[0] * first[1] + second[1]

    def norm(w: Any, x: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6) * w("norm.weight") + w("norm.bias")

    def pool(x: Any, d: Any, stride: int) -> Any:
        weight = (d + 1e-6)[:, None]
        return (x * weight).reshape(-1, stride, x.shape[1]).sum(1) / weight.reshape(-1, stride, 1).sum(1)

    def layer(w: Any, stride: int, x: Any, d: Any) -> Any:
        u = norm(w, x)
        eigenvalue = jnp.minimum(w("ssm.lambda_re"), -1e-4) + 1j * w("ssm.lambda_im")
        tau = jnp.exp(w("ssm.log_step"))
        b, c = (w(f"ssm.{name}")[..., 0] + 1j * w(f"ssm.{name}")[..., 1] for name in "bc")
        decay = jnp.exp(eigenvalue * tau * d[:, None])
        driven = (jnp.exp(eigenvalue * tau) - 1) / eigenvalue * (u.astype(b.dtype) @ b.T)
        h = jax.lax.associative_scan(combine, (decay, driven))[1][::stride]
        if stride > 1:
            u, x, d = pool(u, d, stride), pool(x, d, stride), d.reshape(-1, stride).sum(1)
        through = w("ssm.d")
        y = (h @ c.T).real + (u @ through.T if through.ndim == 2 else u * through)
        y = y * jax.nn.sigmoid(jax.nn.gelu(y) @ w("gate.weight").T + w("gate.bias"))
        return (x @ w("skip.weight").T + w("skip.bias") if w("skip.weight") is not None else x) + y, d

    def model(weights: Any, tokens: Any, d: Any) -> Any:
        x = weights["embedding.weight"][tokens]
        for stage in range(config["n_stages"]):
            for index in range(config["n_layers"]):

                def w(name: str, stage: int = stage, index: int = index) -> Any:
                    return weights.get(f"stages.{stage}.{index}.{name}")

                x, d = layer(w, config["stride"] if index == 0 else 1, x, d)
        pooled = (x * (d + 1e-6)[:, None]).sum(0) / d.sum()
        return weights["head.weight"] @ pooled + weights["head.bias"]

    return model


if __name__ == "__main__":
    main(sys.argv[1])
