"""Several processes on one evaluation: started by torchrun, joined by torch.distributed."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from .errors import RankError

_BEAT_S = 0.5
_POLL_S = 0.05
_HOST_S = 5.0
_STORE_ERRORS = (RuntimeError, OSError, ValueError)
"""What a store of torch raises where its host is gone."""


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Where this process stands among those that torchrun started, as its environment says."""

    rank: int
    size: int
    host: str
    port: int
    is_hosted: bool
    attempt: int


def ranks_of_environment() -> Ranks | None:
    """Return the place of this process among several, or None where it is alone.

    Raises: RankError where the environment is that of torchrun in part only.
    """
    given = os.environ
    if int(given.get("WORLD_SIZE", "1") or 1) < 2:
        return None
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in given]
    if missing:
        raise RankError(
            f"WORLD_SIZE is {given['WORLD_SIZE']}: expected {', '.join(missing)} beside it, found none. "
            "Try torchrun, which sets them, or no WORLD_SIZE."
        )
    return Ranks(
        rank=int(given["RANK"]),
        size=int(given["WORLD_SIZE"]),
        host=given["MASTER_ADDR"],
        port=int(given["MASTER_PORT"]),
        is_hosted=given.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=int(given.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


class World:
    """The processes of one evaluation: who takes which shard, who is still alive, and what all have found.

    Each writes a beat twice a second to a store that they share; one whose beat stops for ``patience_s`` is lost.
    """

    def __init__(self, ranks: Ranks, store: Any, *, patience_s: float, device: str, is_host: bool) -> None:
        self.rank, self.size = ranks.rank, ranks.size
        self._is_host = is_host
        self._store, self._patience_s, self._device = store, patience_s, device
        self._call = ""
        self._n_calls = 0
        self._lost: str | None = None
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._beat, daemon=True, name="spikeport ranks")

    def start(self) -> None:
        """Begin to beat, and to watch the others."""
        self._watch.start()

    def begin(self) -> None:
        """Begin one evaluation: counters of its own."""
        self._n_calls += 1
        self._call = f"call{self._n_calls}"

    def take(self) -> int:
        """Return the number of the next shard that nobody has taken."""
        self.check()
        with self._answering("take a shard"):
            return int(self._store.add(f"{self._call}/next", 1)) - 1

    def check(self) -> None:
        """Check that all processes are alive.

        Raises: RankError where one is lost.
        """
        if self._lost is not None:
            raise RankError(self._lost)

    def gather(self, text: str) -> list[str]:
        """Return the texts of all processes, by rank, as soon as each has come here.

        Raises: RankError where one is lost before.
        """
        with self._answering("gather results"):
            self._store.set(f"{self._call}/done/{self.rank}", "1")
            while not all(self._store.check([f"{self._call}/done/{rank}"]) for rank in range(self.size)):
                self.check()
                time.sleep(_POLL_S)
            return self._exchange(text)

    def close(self) -> None:
        """End the beats; the process that keeps the store waits a moment for the others."""
        with contextlib.suppress(*_STORE_ERRORS):
            self._store.add("bye", 1)
            deadline = time.monotonic() + _HOST_S
            while self._is_host and time.monotonic() < deadline and int(self._store.add("bye", 0)) < self.size:
                time.sleep(_POLL_S)
        self._ended.set()

    def _exchange(self, text: str) -> list[str]:
        import torch
        import torch.distributed as dist

        data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).to(self._device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([data.numel()], device=self._device))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8, device=self._device)
        padded[: data.numel()] = data
        found = [torch.zeros(longest, dtype=torch.uint8, device=self._device) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return [bytes(one[: int(n)].cpu().numpy()).decode() for one, n in zip(found, sizes, strict=True)]

    @contextlib.contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        try:
            yield
        except RankError:
            raise
        except _STORE_ERRORS as cause:
            text = self._lost or f"rank {self.rank} could not {what}: another process of the evaluation is lost"
            raise RankError(self._lost or f"{text}. {_AGAIN}") from cause

    def _beat(self) -> None:
        """Beat, and see who has stopped; only calls of the store that do not wait, as the main thread uses it too."""
        seen = {rank: ("", time.monotonic()) for rank in range(self.size) if rank != self.rank}
        n = 0
        while not self._ended.wait(_BEAT_S):
            n += 1
            try:
                self._store.set(f"beat/{self.rank}", str(n))
                for rank in seen:
                    key = f"beat/{rank}"
                    beat = self._store.get(key).decode() if self._store.check([key]) else ""
                    if beat != seen[rank][0]:
                        seen[rank] = beat, time.monotonic()
                goodbyes = int(self._store.add("bye", 0))
            except _STORE_ERRORS:
                self._lost = self._lost or f"rank {self.rank}: the process that keeps the store is lost. {_AGAIN}"
                return
            late = [rank for rank, (_, at) in seen.items() if time.monotonic() - at > self._patience_s]
            if late and not goodbyes:
                self._lost = (
                    f"rank {late[0]} of {self.size} has not been heard of for {self._patience_s:g} s: it is lost. "
                    f"{_AGAIN}"
                )
                return


_AGAIN = "Try the same command again: with a folder of shards it goes on from the finished ones."

_worlds: dict[int, World] = {}
_own_groups: set[int] = set()


def join_world(*, patience_s: float = 15.0) -> World | None:
    """Return the processes that this one works with, joined at the first call; None where it is alone.

    The backend is nccl where each process has a GPU, else gloo.
    Raises: RankError where the others cannot be reached.
    """
    ranks = ranks_of_environment()
    if ranks is None:
        return None
    key = os.getpid()
    if key not in _worlds:
        _worlds[key] = _connected(ranks, patience_s)
    return _worlds[key]


def leave_world() -> None:
    """Leave the processes that this one worked with; nothing where it is alone."""
    world = _worlds.pop(os.getpid(), None)
    if world is not None:
        import torch.distributed as dist

        world.close()
        if os.getpid() in _own_groups and dist.is_initialized():
            _own_groups.discard(os.getpid())
            dist.destroy_process_group()


@contextlib.contextmanager
def quiet_ranks() -> Iterator[None]:
    """Lead what all but the first of several processes print to stdout into nothing."""
    world = join_world()
    with contextlib.nullcontext() if world is None or world.rank == 0 else contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def told_to_end(world: World | None) -> Iterator[None]:
    """Turn the signal by which torchrun ends the ranks that are left into a RankError with what to do."""
    if world is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def refuse(number: int, _: object) -> None:
        raise RankError(
            f"rank {world.rank} of {world.size} was told to end ({signal.Signals(number).name}): another process of "
            f"the evaluation is lost, or it was stopped. {_AGAIN}"
        )

    before = signal.signal(signal.SIGTERM, refuse)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _connected(ranks: Ranks, patience_s: float) -> World:
    import torch.distributed as dist

    wait = timedelta(seconds=max(60.0, 2 * patience_s))
    is_joined = bool(dist.is_initialized())  # by the user's own code: that group is used, and left alone
    is_host = ranks.rank == 0 and not ranks.is_hosted and not is_joined
    try:
        tcp = _store_kind("TCPStore")(ranks.host, ranks.port, ranks.size, is_host, timeout=wait, wait_for_workers=False)
        store = _store_kind("PrefixStore")(f"spikeport/{ranks.attempt}", tcp)
        if not is_joined:
            group = _store_kind("PrefixStore")("group", store)
            dist.init_process_group(_backend(ranks), store=group, rank=ranks.rank, world_size=ranks.size, timeout=wait)
            _own_groups.add(os.getpid())
    except _STORE_ERRORS as cause:
        raise RankError(
            f"rank {ranks.rank} of {ranks.size}: expected the others at {ranks.host}:{ranks.port}, found none "
            f"({str(cause).splitlines()[0][:120]}). Try starting all of them with torchrun."
        ) from cause
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if dist.get_backend() == "nccl" else "cpu"
    world = World(ranks, store, patience_s=patience_s, device=device, is_host=is_host)
    world.start()
    atexit.register(leave_world)
    return world


def _backend(ranks: Ranks) -> str:
    """Return nccl where each process of this machine has a GPU, else gloo."""
    import torch
    import torch.distributed as dist

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", str(ranks.size)))
    return "nccl" if n_gpus >= n_here and dist.is_nccl_available() else "gloo"


def _store_kind(name: str) -> Any:
    """Return a class of stores; torch offers them without saying so to type checkers."""
    import torch.distributed as dist

    return getattr(dist, name)
