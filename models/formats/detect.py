"""What a file is by its first bytes, where that shows."""

from __future__ import annotations

HEAD_BYTES = 1 << 16
"""Bytes that are looked at."""

_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"#!AER-DAT2.0", "an AEDAT 2.0 recording"),
    (b"#!AER-DAT3.", "an AEDAT 3 recording"),
    (b"#!AER-DAT4.0\r\n", "an AEDAT 4 recording"),
    (b"#!AER-DAT", "an AEDAT recording of another version"),
    (b"Event Stream", "an Event Stream file"),
    (b"%PDF-", "a PDF document"),
)
_TEXT = bytes(range(32, 127)) + b"\t\n\r"


def foreign(head: bytes) -> str | None:
    """Return what a file with these first bytes is, where that shows at once; None for plain binary data."""
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    return "text" if head and not head[:HEAD_BYTES].translate(None, _TEXT) else None
