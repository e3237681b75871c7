"""NumPy's own files, decoded from bytes with no pickle and nothing allocated on a header's word."""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .errors import ModelsError

MAX_BYTES = 1 << 30
"""Most bytes that an archive says it unpacks to."""

ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,  # encrypted; NotImplementedError is one too: another kind of compression
)
"""What reading a damaged zip archive raises."""

_NPY_DAMAGE = (ValueError, TypeError, LookupError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


def npz_arrays(data: bytes, name: str, *, error: type[ModelsError]) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file by name, read-only; ``name`` is what errors call the file.

    Raises: ``error``, in one sentence, where the archive or an array of it is damaged, too large or holds objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            declared = sum(entry.file_size for entry in entries)
            contents = {} if declared > MAX_BYTES else {entry.filename: archive.read(entry) for entry in entries}
    except ZIP_DAMAGE as cause:
        raise error(
            f"{name}: expected an .npz file, found a damaged or foreign one ({_reason(cause)}). Try numpy.savez again."
        ) from cause
    if declared > MAX_BYTES:
        raise error(f"{name}: expected at most {MAX_BYTES} bytes, found arrays that unpack to {declared}. Try fewer.")
    return {
        member.removesuffix(".npy"): npy_array(content, f"{name}: {member!r:.60}", error=error)
        for member, content in contents.items()
    }


def npy_array(data: bytes, where: str, *, error: type[ModelsError]) -> NDArray[Any]:
    """Return the array in the bytes of a ``.npy`` file, read-only; ``where`` is what errors call it.

    Raises: ``error``, in one sentence, where the header is damaged, asks for objects, or declares another size than
    there is.
    """
    stream = io.BytesIO(data)
    shape, is_fortran, dtype = npy_header(stream, where, error=error)
    declared, held = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    try:
        if declared != held:
            raise ValueError("another number of bytes than it declares")
        return np.ndarray(shape, dtype, data, stream.tell(), order="F" if is_fortran else "C")
    except (ValueError, OverflowError) as cause:
        raise error(
            f"{where}: expected {declared} bytes for {dtype!s:.80} of shape {list(shape)!s:.80}, found {held}. "
            "Try numpy.save again."
        ) from cause


def npy_header(
    stream: BinaryIO, where: str, *, error: type[ModelsError]
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether columns come first, and dtype of the array that begins here in a stream.

    Raises: ``error``, in one sentence, where the header is damaged or asks for objects.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python 2 headers and old dtype names
            version = npy.read_magic(stream)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = read_header(stream)
    except _NPY_DAMAGE as cause:
        raise error(
            f"{where}: expected a NumPy array, found a damaged one ({_reason(cause)}). Try numpy.save again."
        ) from cause
    if dtype.hasobject:
        raise error(
            f"{where}: expected numbers, found Python objects, which are refused because reading them can run code. "
            "Try numpy.save of an array of numbers."
        )
    return shape, is_fortran, dtype


def _reason(cause: BaseException) -> str:
    lines = str(cause).strip().splitlines()
    return lines[0][:100] if lines else type(cause).__name__
