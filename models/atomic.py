"""Files that are written whole or not at all, and the check of a target before the work for it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import TargetError


def write_atomic(path: str | Path, data: bytes | Iterable[bytes]) -> None:
    """Write ``data``, or its pieces as they come, to ``path`` by way of a temporary file in the same folder.

    The file is synced and then renamed.

    Law: after an interruption at any moment ``path`` holds its old content or all of the new one.
    Raises: OSError, about ``path``, where the folder is missing or cannot be written to.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the folder it should go into is not there", str(target))
    try:
        _replace(target, data)
    except OSError as cause:
        raise OSError(cause.errno or errno.EIO, cause.strerror or str(cause), str(target)) from cause


def check_target(path: Path, *, suffixes: tuple[str, ...], inputs: Iterable[Path] = ()) -> None:
    """Check, before any long work, that a file can be written to ``path`` and is none of the ``inputs``.

    Raises: TargetError for another suffix than ``suffixes``, a missing folder or one that cannot be written to, a
    folder at ``path``, or an input there.
    """
    name = path.name or str(path)
    if path.is_dir():
        raise TargetError(f"{name}: expected a file to write, found a folder. Try a file in it.")
    if path.suffix not in suffixes:
        raise TargetError(
            f"{name}: expected a name that ends in {' or '.join(suffixes)}, found '{path.suffix}'. "
            f"Try {path.stem}{suffixes[0]}."
        )
    if not path.parent.is_dir():
        raise TargetError(f"{name}: expected a folder to write it into, found none at '{path.parent}'. Try to make it.")
    if not os.access(path.parent, os.W_OK):
        raise TargetError(f"{name}: expected a folder that can be written to, '{path.parent}' cannot. Try another.")
    if any(_is_same(path, one) for one in inputs):
        raise TargetError(f"{name}: expected another file than the input, found the same one. Try another name.")


def _is_same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))


def _replace(target: Path, data: bytes | Iterable[bytes]) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines([data] if isinstance(data, bytes) else data)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
