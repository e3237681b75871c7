"""Finished shards of an evaluation in a folder: one small JSON file each, written whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from .atomic import write_atomic
from .errors import ShardError

_MAX_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class ShardFolder:
    """Where the shards of one evaluation lie; ``evaluation`` is the hash of everything that the result depends on."""

    folder: Path
    evaluation: str

    def open(self) -> None:
        """Make the folder, and check that it belongs to this evaluation.

        Raises: ShardError where it holds shards of another one.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ShardError(
                f"{self.folder.name}: expected a folder for finished shards, found a file. Try another name."
            ) from None
        first = next(iter(sorted(self.folder.glob("shard-*.json"))), None)
        if first is not None:
            self._read(first)

    def find(self, number: int) -> dict[str, Any] | None:
        """Return the states of a finished shard, None where it is not finished.

        Raises: ShardError where its file is damaged, or of another evaluation.
        """
        path = self._path(number)
        return self._read(path) if path.is_file() else None

    def write(self, number: int, states: dict[str, Any]) -> None:
        """Write the states of a finished shard."""
        content = {"evaluation": self.evaluation, "states": states}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        text = json.dumps({**content, "sha256": digest}, sort_keys=True, allow_nan=False)
        write_atomic(self._path(number), text.encode())

    def count(self) -> int:
        """Return how many shards are finished."""
        return sum(1 for _ in self.folder.glob("shard-*.json"))

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:08d}.json"

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError(f"more than {_MAX_BYTES} bytes")
            content = json.loads(path.read_text(encoding="utf-8"))
            digest = content.pop("sha256")
            if digest != hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest():
                raise ValueError("another hash than its own")
            states = content["states"]
            if not isinstance(states, dict):
                raise ValueError("no states")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
            raise ShardError(
                f"{path.name}: expected a finished shard, found a damaged file ({cause!s:.80}). Try deleting it: the "
                "shard is run again."
            ) from cause
        if content["evaluation"] != self.evaluation:
            raise ShardError(
                f"{path.name}: expected a shard of this evaluation, found one of other data, settings, metrics or "
                "another predictor. Try another folder."
            )
        return states
