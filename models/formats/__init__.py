"""The kinds of event files: one module each, and the choice between them by suffix and content.

``source`` holds the records that all share, ``loops`` what is compiled; ``admit`` checks and repairs what they decode.
"""

from __future__ import annotations

from spikeport.models.errors import EventFileError

from .aedat2 import encode_aedat2, open_aedat2
from .aedat3 import encode_aedat3, open_aedat3
from .aedat4 import encode_aedat4, open_aedat4
from .arrays import encode_npy, encode_npz, open_npy, open_npz
from .dat import encode_dat, open_dat
from .detect import HEAD_BYTES, foreign
from .es import encode_es, open_es
from .evt import encode_evt2, encode_evt3, open_evt
from .hdf5 import encode_dsec, encode_hdf5, open_hdf5
from .nmnist import encode_nmnist, open_nmnist
from .source import Format, Source
from .text import encode_text, open_text

_H5 = (".h5", ".hdf5")
_AEDAT = (".aedat",)

FORMATS = (
    Format("nmnist", "N-MNIST binary", (".bin", ".bs2"), None, open_nmnist, encode_nmnist),
    Format("npz", "NumPy archive", (".npz",), "a zip archive", open_npz, encode_npz),
    Format("npy", "NumPy structured array", (".npy",), "a NumPy array", open_npy, encode_npy),
    Format("aedat3", "AEDAT 3.1", _AEDAT, "an AEDAT 3 recording", open_aedat3, encode_aedat3),
    Format("aedat2", "AEDAT 2.0", _AEDAT, "an AEDAT 2.0 recording", open_aedat2, encode_aedat2),
    Format("aedat4", "AEDAT 4", (".aedat4", *_AEDAT), "an AEDAT 4 recording", open_aedat4, encode_aedat4),
    Format("dat", "Prophesee DAT", (".dat",), None, open_dat, encode_dat),
    Format("evt3", "Prophesee EVT3", (".raw",), None, open_evt, encode_evt3),
    Format("evt2", "Prophesee EVT2", (".raw",), None, open_evt, encode_evt2),
    Format("hdf5", "HDF5", _H5, "an HDF5 file", open_hdf5, encode_hdf5),
    Format("dsec", "HDF5 as in DSEC", _H5, "an HDF5 file", open_hdf5, encode_dsec),
    Format("es", "Event Stream", (".es",), "an Event Stream file", open_es, encode_es),
    Format("csv", "text in columns", (".csv", ".txt"), None, open_text, encode_text),
)
"""Where several have a suffix, files of that suffix are written as the first of them."""

SUFFIXES = tuple(dict.fromkeys(suffix for form in FORMATS for suffix in form.suffixes))


def find_format(name: str) -> Format:
    """Return the format of that name.

    Raises: EventFileError where there is none.
    """
    for form in FORMATS:
        if form.name == name:
            return form
    raise EventFileError(
        f"format '{name}': expected one of {', '.join(form.name for form in FORMATS)}, found another. Try npz."
    )


def choose_format(source: Source, suffix: str) -> Format:
    """Return the format to read a file with: the one asked for, or the one of its suffix that its content fits.

    Raises: EventFileError where the suffix is none of ours, or the content is something else.
    """
    asked = source.options.format
    candidates = [find_format(asked)] if asked else [form for form in FORMATS if suffix.lower() in form.suffixes]
    if not candidates:
        raise EventFileError(
            f"{source.name}: expected a file that ends in {', '.join(SUFFIXES)}, found '{suffix}'. "
            "Try the suffix of its format, or naming the format."
        )
    head = source.read_at(0, HEAD_BYTES)
    kind = foreign(head)
    for form in candidates:
        if form.kind == kind and kind is not None:
            return form
    expected = candidates[0].kind
    if expected is not None:
        found = kind or ("something else, or a damaged one" if head else "nothing: it is empty")
        if any(form.kind == found for form in FORMATS):
            found += " (another suffix, or format, would fit)"
        wanted = " or ".join(dict.fromkeys(str(form.kind) for form in candidates))
        raise EventFileError(
            f"{source.name}: byte 0: expected {wanted}, found {found}. Try copying it again, or another file."
        )
    if not head:
        raise EventFileError(f"{source.name}: expected events, found an empty file. Try copying it again.")
    is_text = candidates[0].name == "csv" or head.startswith(b"% ")
    if kind is not None and candidates[0].name != "nmnist" and not (kind == "text" and is_text):
        raise EventFileError(
            f"{source.name}: byte 0: expected {candidates[0].title}, found what reads as {kind}. "
            "Try the suffix that fits, or another file."
        )
    return candidates[0]
