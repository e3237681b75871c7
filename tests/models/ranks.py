"""What a rank of the tests runs: an evaluation that says where it is, and that can be slow or end suddenly."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from spikeport.models.callbacks import Callback, Checkpoint
from spikeport.models.distributed import quiet_ranks
from spikeport.models.errors import ModelsError
from spikeport.models.infer import evaluate

from .leaky import LeakyPredictor

METRICS = {
    "logits": ["accuracy", "top_2", "confusion_matrix", "latency"],
    "total": ["mean_square_error"],
}


def data(n: int = 60) -> Any:
    rng = np.random.default_rng(0)
    targets = {"logits": rng.integers(0, 4, n), "total": rng.normal(size=n)}
    return rng.integers(0, 2, (n, 5, 2, 5, 6)).astype(np.float32), targets


class Pace(Callback):
    """Makes each batch take ``seconds``, and this process end at once after ``n_batches`` where it is the one to."""

    def __init__(self, seconds: float, n_batches: int | None) -> None:
        self.seconds, self.left = seconds, n_batches

    def after_batch(self, seen: Any, response: Any) -> None:
        time.sleep(self.seconds)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), 9)


def main(folder: str, seconds: str, killed: str) -> None:
    n_batches = 3 if os.environ.get("RANK") == killed else None
    callbacks: list[Any] = [Pace(float(seconds), n_batches)]
    if folder != "none":
        callbacks.append(Checkpoint(Path(folder), 5))
    try:
        found = evaluate(LeakyPredictor(), data(), metrics=METRICS, callbacks=callbacks)
    except ModelsError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)
    with quiet_ranks():
        print(json.dumps(found.to_dict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
