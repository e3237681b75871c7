"""One board, one process: a lock file per virtual board, with the id of the process that holds it.

The system takes a lock back when its process ends, however it ends: a file that is left over locks nothing.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import VirtualBoardError

FOLDER_VARIABLE = "SPIKEPORT_LOCKS"
"""Environment variable with the folder of the lock files, in place of the system's temporary folder."""


def lock_folder() -> Path:
    """Return the folder of the lock files."""
    return Path(os.environ.get(FOLDER_VARIABLE) or tempfile.gettempdir())


class BoardLock:
    """The lock of the board called ``name``."""

    def __init__(self, name: str, folder: Path) -> None:
        user = os.getuid() if hasattr(os, "getuid") else 0
        self._path = folder / f"spikeport-{user}-virtual-{name.replace(':', '-')}.lock"
        self._name = name
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock.

        Raises: VirtualBoardError where another process, or another driver of this one, has it, with its id; or where no
        file can be written.
        """
        import fcntl

        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(self._path, flags, 0o600)
        except OSError as cause:
            raise VirtualBoardError(
                f"virtual board {self._name}: its lock file cannot be opened: {cause.strerror}. "
                f"Try a folder that can be written to, in {FOLDER_VARIABLE}."
            ) from cause
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            owner = os.pread(file, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise VirtualBoardError(
                f"virtual board {self._name}: owned by process {owner}. Try closing it there, or another board."
            ) from cause
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        """Give the lock back; twice is fine."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    @property
    def is_free(self) -> bool:
        """Whether nobody has the lock."""
        if self._file is not None:
            return False
        probe = BoardLock.__new__(BoardLock)
        probe._path, probe._name, probe._file = self._path, self._name, None
        try:
            probe.take()
        except VirtualBoardError:
            return False
        probe.release()
        return True
