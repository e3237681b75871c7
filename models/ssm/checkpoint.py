"""Checkpoints of the original implementation: flax's msgpack files, read without flax."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeport.models.errors import WeightsFileError

from .predictor import check_tensors

if TYPE_CHECKING:
    from spikeport.models.event_ssm import EventSSM

MAX_BYTES = 1 << 30

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
"""Extension types of flax: an array, a complex number, a scalar of numpy. Each holds a message of its own."""

_SSM = ("Lambda_re", "Lambda_im", "B", "C", "D", "log_step")


def load_flax_checkpoint(module: EventSSM, path: str | Path) -> None:
    """Load the weights of a checkpoint of event-ssm into ``module``.

    ``path`` is a file that ``flax.training.checkpoints`` wrote as msgpack, or a folder of such files, of which that of
    the latest step is taken. Optimizer and random key are left out; statistics of batch normalization are taken. The
    tokens of such weights are those of ``config(..., tokens="product")`` for cameras.
    Raises: WeightsFileError where there is no such file, it is damaged, or holds other weights than the module has, all
    of them named; the module is then left as it was.
    """
    import torch

    file = _file_at(Path(path))
    tree = _read(file)
    params = tree.get("params")
    if not isinstance(params, dict):
        raise WeightsFileError(
            f"{file.name}: expected a flax checkpoint with 'params', found {', '.join(map(str, tree)) or 'nothing'}. "
            "Try the file that training wrote."
        )
    state = tree.get("model_state")
    stats = state.get("batch_stats", {}) if isinstance(state, dict) else {}
    found = dict(_leaves(params)) | {f"stats/{name}": leaf for name, leaf in _leaves(stats)}
    names = _names(module)
    wrong = [f"'{name}' is missing" for name in names if name not in found]
    wrong += [f"'{name}' belongs to no layer" for name in found if name not in names]
    tensors = {}
    for name, (own, change) in names.items():
        if name in found:
            leaf = found[name]
            is_fit = isinstance(leaf, np.ndarray) and leaf.dtype == np.float32
            tensors[own] = change(leaf) if is_fit else leaf
            if not is_fit:
                wrong.append(f"'{name}': expected float32, found {getattr(leaf, 'dtype', type(leaf).__name__)}")
    if not wrong:
        try:
            check_tensors(module, tensors)
        except ValueError as cause:
            wrong.append(str(cause).rstrip("."))
    if wrong:
        more = f"; {len(wrong) - 4} further" if len(wrong) > 4 else ""
        raise WeightsFileError(
            f"{file.name}: not the weights of this model: {'; '.join(wrong[:4])}{more}. Try the config that it was "
            "trained with."
        )
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})


def _names(module: EventSSM) -> dict[str, tuple[str, Any]]:
    """Return for each name in a checkpoint that of the module's tensor, and how one becomes the other."""

    def same(array: NDArray[Any]) -> NDArray[Any]:
        return array

    def turned(array: NDArray[Any]) -> NDArray[Any]:
        return array.T

    def flat(array: NDArray[Any]) -> NDArray[Any]:
        return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array

    names: dict[str, tuple[str, Any]] = {"encoder/encoder/embedding": ("embedding.weight", same)}
    norm = "BatchNorm_0" if module.config.norm == "batch" else "LayerNorm_0"
    for stage, shapes in enumerate(module.config.shapes):
        for index, shape in enumerate(shapes):
            there, here = f"encoder/stages_{stage}/SequenceLayer_{index}", f"stages.{stage}.{index}"
            for name in _SSM:
                names[f"{there}/S5SSM_0/{name}"] = f"{here}.ssm.{name.lower()}", flat if name == "log_step" else same
            names[f"{there}/{norm}/scale"] = f"{here}.norm.weight", same
            names[f"{there}/{norm}/bias"] = f"{here}.norm.bias", same
            if norm == "BatchNorm_0":
                for kind in ("mean", "var"):
                    names[f"stats/{there}/{norm}/{kind}"] = f"{here}.norm.running_{kind}", same
            dense = {"Dense_0": "gate"} | ({"Dense_1": "skip"} if shape.n_in != shape.n_out else {})
            for name, own in dense.items():
                names[f"{there}/{name}/kernel"] = f"{here}.{own}.weight", turned
                names[f"{there}/{name}/bias"] = f"{here}.{own}.bias", same
    return names | {"decoder/kernel": ("head.weight", turned), "decoder/bias": ("head.bias", same)}


def _file_at(path: Path) -> Path:
    if not path.is_dir():
        return path
    steps = {int(match[1]): file for file in path.iterdir() if (match := re.fullmatch(r"checkpoint_(\d+)", file.name))}
    files = {step: file for step, file in steps.items() if file.is_file()}
    if not files:
        kind = "Orbax's folders" if steps or (path / "_METADATA").exists() else "none"
        raise WeightsFileError(
            f"{path.name}: expected files 'checkpoint_STEP' of msgpack, found {kind}. "
            "Try flax.serialization.to_bytes(state), written to a file."
        )
    return files[max(files)]


def _read(file: Path) -> dict[Any, Any]:
    try:
        import msgpack
    except ImportError as cause:
        raise WeightsFileError(
            f"{file.name}: expected the package msgpack to read a flax checkpoint, found none. "
            "Try pip install 'spikeport[flax]'."
        ) from cause
    if not file.is_file():
        raise WeightsFileError(f"{file.name}: expected a flax checkpoint, found nothing there. Try another path.")
    if file.stat().st_size > MAX_BYTES:
        raise WeightsFileError(
            f"{file.name}: expected at most {MAX_BYTES} bytes, found {file.stat().st_size}. Try its params alone."
        )

    def read_extension(code: int, data: bytes) -> Any:
        if code in (_ARRAY, _SCALAR):
            shape, kind, content = msgpack.unpackb(data, raw=False)
            try:
                dtype = np.dtype(kind)
            except TypeError:  # such as bfloat16: named where it is a weight's
                return str(kind)
            if dtype.hasobject:
                raise ValueError(f"an array of {dtype}")
            return np.frombuffer(content, dtype).reshape(shape)
        return None if code == _COMPLEX else msgpack.ExtType(code, data)

    try:
        tree = msgpack.unpackb(file.read_bytes(), ext_hook=read_extension, raw=False, strict_map_key=False)
    except (msgpack.UnpackException, ValueError, TypeError, OSError, RecursionError, MemoryError) as cause:
        raise WeightsFileError(
            f"{file.name}: expected a flax checkpoint of msgpack, found a damaged or foreign file ({cause!s:.80}). "
            "Try copying it again."
        ) from cause
    if not isinstance(tree, dict):
        raise WeightsFileError(
            f"{file.name}: expected a flax checkpoint, found a message of {type(tree).__name__}. Try another file."
        )
    return tree


def _leaves(tree: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}/")
        else:
            yield f"{above}{name}", value
