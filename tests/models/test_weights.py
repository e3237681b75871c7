"""Weight files: what is saved comes back, nothing in a file is run, and a module is loaded whole or left as it was."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from spikeport.models import weights
from spikeport.models.digits_cnn import strided_digits_cnn
from spikeport.models.errors import WeightsFileError
from spikeport.models.gesture_cnn import gesture_cnn
from spikeport.models.weights import load_weights, save_weights

from ..shared import SHARED, needs  # noqa: TID252

WEIGHTS = SHARED / "weights"


def _module(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4, bias=False))


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items() if "tracked" not in name}


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _torch_bytes(content: object, *, is_zip: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def test_weights_come_back(tmp_path: Path) -> None:
    module = _module()
    save_weights(module, tmp_path / "w.safetensors")
    other = _module(1)
    load_weights(other, tmp_path / "w.safetensors")
    assert _same(_state(other), _state(module))
    save_weights(other, tmp_path / "again.safetensors")
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_layers_that_share_their_weights_come_back(tmp_path: Path) -> None:
    layer = nn.Linear(3, 3)
    module = nn.Sequential(layer, nn.ReLU(), layer)
    save_weights(module, tmp_path / "w.safetensors")
    other = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    load_weights(other, tmp_path / "w.safetensors")
    assert _same(_state(other), _state(module))


WRITERS: dict[str, Callable[[dict[str, torch.Tensor]], bytes]] = {
    "w.safetensors": save,
    "w.npz": lambda state: _npz(**{name: tensor.numpy() for name, tensor in state.items()}),
    "w.pt": _torch_bytes,
    "w.pth": lambda state: _torch_bytes(OrderedDict(state), is_zip=False),
    "nested.pt": lambda state: _torch_bytes({"state_dict": state, "epoch": 3}),
    "parameters.PT": lambda state: _torch_bytes({name: nn.Parameter(tensor) for name, tensor in state.items()}),
    "double.npz": lambda state: _npz(**{name: tensor.double().numpy() for name, tensor in state.items()}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_by_name(tmp_path: Path, name: str) -> None:
    expected = _state(_module())
    (tmp_path / name).write_bytes(WRITERS[name](dict(reversed(expected.items()))))
    module = _module(1)
    load_weights(module, tmp_path / name)
    assert _same(_state(module), expected)


@pytest.mark.parametrize("name", ["w.npz", "w.pt"])
def test_tensors_of_other_names_are_taken_in_their_order(tmp_path: Path, name: str) -> None:
    expected = _state(_module())
    renamed = {f"tensor_{index}": tensor for index, tensor in enumerate(expected.values())}
    (tmp_path / name).write_bytes(WRITERS[name](renamed))
    module = _module(1)
    load_weights(module, tmp_path / name)
    assert _same(_state(module), expected)


def test_a_format_without_order_is_read_by_name_only(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    (tmp_path / "w.safetensors").write_bytes(save({"b.first": torch.zeros(2, 2), "a.second": torch.ones(2, 2)}))
    with pytest.raises(WeightsFileError, match=r"'0\.weight' is missing"):
        load_weights(module, tmp_path / "w.safetensors")


def test_every_mismatch_is_told_at_once_and_the_module_left_alone(tmp_path: Path) -> None:
    found = _state(_module(1))
    found["0.weight"] = torch.zeros(3, 2, 5, 5)
    found["1.bias"][1] = float("nan")
    found["1.running_var"][0] = float("inf")
    found["extra"] = found.pop("4.weight")
    (tmp_path / "w.pt").write_bytes(_torch_bytes(found))
    module = _module()
    before = _state(module)
    with pytest.raises(WeightsFileError) as raised:
        load_weights(module, tmp_path / "w.pt")
    for problem in (
        "w.pt: not the weights of this network",
        "'0.weight': expected [3, 2, 3, 3], found [3, 2, 5, 5]",
        "'1.bias' holds NaN or infinity",
        "'1.running_var' holds NaN or infinity",
        "'4.weight' is missing",
        "'extra' belongs to no layer",
    ):
        assert problem in str(raised.value)
    assert _same(_state(module), before)


@pytest.mark.parametrize("name", ["w.npz", "w.pt"])
def test_a_weight_too_large_for_the_module_is_refused(tmp_path: Path, name: str) -> None:
    found = {key: tensor.double() for key, tensor in _state(_module()).items()}
    found["4.weight"][0, 0] = 1e300
    (tmp_path / name).write_bytes(WRITERS[name](found))
    with pytest.raises(WeightsFileError, match=r"'4\.weight' holds NaN or infinity"):
        load_weights(_module(), tmp_path / name)


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def _short(text: bytes) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text


HOSTILE: dict[str, Callable[[_Hostile], bytes]] = {
    "zip.pt": _torch_bytes,
    "old.pth": lambda hostile: _torch_bytes(hostile, is_zip=False),
    "beside_weights.pt": lambda hostile: _torch_bytes({**_state(_module()), "note": hostile}),
    "protocol_0.pt": lambda hostile: b"cposix\nmkdir\n(V" + bytes(hostile.target) + b"\ntR.",
    "protocol_4.pt": lambda hostile: (
        b"\x80\x04" + b"".join(map(_short, (b"posix", b"mkdir"))) + b"\x93" + _short(bytes(hostile.target)) + b"\x85R."
    ),
    "protocol_0.npz": lambda hostile: b"cposix\nmkdir\n(V" + bytes(hostile.target) + b"\ntR.",
    "objects.npz": lambda hostile: _npz(w=np.array([hostile, None], dtype=object)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_code_in_a_file_is_not_run(tmp_path: Path, name: str) -> None:
    target = tmp_path / "executed"
    (tmp_path / name).write_bytes(HOSTILE[name](_Hostile(target)))
    module = _module()
    before = _state(module)
    with pytest.raises(WeightsFileError, match=f"^{name}: ") as raised:
        load_weights(module, tmp_path / name)
    assert not target.exists()
    assert "weights_only" not in str(raised.value)  # torch's text says how to run the code
    assert _same(_state(module), before)
    if name.startswith("protocol"):  # what Python's own reader makes of it: the file was a danger indeed
        subprocess.run([sys.executable, "-m", "pickle", str(tmp_path / name)], check=True, capture_output=True)
        assert target.exists()


@needs("weights")
def test_a_real_pickled_module_is_refused() -> None:
    with pytest.raises(WeightsFileError, match="holds more than weights: loading it would run code, so it is refused"):
        load_weights(strided_digits_cnn(), WEIGHTS / "speckdevkit_nmnist_cnn_entire_model.pth")


@needs("weights")
@pytest.mark.parametrize(
    ("build", "name"),
    [(gesture_cnn, "sinabs_dvs_gesture_params.pt"), (strided_digits_cnn, "speckdevkit_nmnist_cnn.npz")],
)
def test_public_weights_fit_their_networks_in_order(build: Callable[[], nn.Module], name: str) -> None:
    module = build()
    load_weights(module, WEIGHTS / name)
    if name.endswith(".npz"):
        with np.load(WEIGHTS / name, allow_pickle=False) as arrays:
            expected = [torch.from_numpy(arrays[key]) for key in arrays.files]
    else:
        expected = list(torch.load(WEIGHTS / name, map_location="cpu", weights_only=True).values())
    parameters = list(module.parameters())
    assert len(parameters) == len(expected)
    assert all(torch.equal(parameter, tensor) for parameter, tensor in zip(parameters, expected, strict=True))


@needs("weights")
def test_public_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsFileError, match=r"'conv1\.weight' is missing.*'11\.weight' belongs to no layer"):
        load_weights(strided_digits_cnn(), WEIGHTS / "sinabs_dvs_gesture_params.pt")


def _sparse() -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([[0], [1]]), torch.ones(1), (4, 12), check_invariants=True)


GOOD = _torch_bytes(_state(_module()))
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty.pt": (b"", "found a damaged or foreign file"),
    "text.pt": (b"hello, this is text", "expected a torch file, found a damaged or foreign file"),
    "picture.pth": (b"\x89PNG\r\n\x1a\n" + bytes(50), "found a damaged or foreign file"),
    "cut.pt": (GOOD[:-200], "expected a torch file, found a damaged or foreign file"),
    "empty.npz": (b"", "found a damaged or foreign one"),
    "cut.npz": (_npz(w=np.zeros(9))[:-30], "expected an .npz file, found a damaged or foreign one"),
    "text.npz": (_npz(w=np.array(["a"])), r"expected numbers, found 'w' \(<U1\)"),
    "empty.safetensors": (b"", "expected a safetensors file, found a damaged or foreign file"),
    "cut.safetensors": (save({"w": torch.zeros(9)})[:-3], "found a damaged or foreign file"),
    "weights.bin": (GOOD, r"ends in .safetensors, .npz, .pt, .pth, found '.bin'"),
    "tensor.pt": (_torch_bytes(torch.zeros(3)), "expected a state dict of tensors, found Tensor"),
    "numbers.pt": (_torch_bytes({"w": 3.0}), "expected a state dict of tensors"),
    "list.pt": (_torch_bytes([torch.zeros(3)]), "expected a state dict of tensors, found list"),
    "sparse.pt": (_torch_bytes({"4.weight": _sparse()}), "expected dense tensors of real numbers.*'4.weight'"),
    "complex.pt": (_torch_bytes({"w": torch.zeros(3, dtype=torch.complex64)}), "dense tensors of real numbers"),
    "meta.pt": (_torch_bytes({"w": torch.zeros(3, device="meta")}), "dense tensors of real numbers"),
    "nothing.pt": (_torch_bytes({}), "'0.weight' is missing"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_one_sentence_with_the_name_of_the_file(tmp_path: Path, name: str) -> None:
    content, message = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    module = _module()
    before = _state(module)
    with pytest.raises(WeightsFileError, match=message) as raised:
        load_weights(module, tmp_path / name)
    said = str(raised.value)
    assert said.startswith(f"{name}: ")
    assert str(tmp_path) not in said
    assert "\n" not in said
    assert "Try " in said
    assert raised.value.exit_code == 6
    assert _same(_state(module), before)


@pytest.mark.parametrize(("name", "found"), [("gone.pt", "nothing"), ("folder.pt", "a folder")])
def test_a_file_that_is_not_there(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(WeightsFileError, match=f"^{name}: expected a file of weights, found {found} there. Try"):
        load_weights(_module(), tmp_path / name)


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_may_not_be_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    content = GOOD
    if packed:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data/0", bytes(100_000))
        content = stream.getvalue()
    (tmp_path / "w.pt").write_bytes(content)
    monkeypatch.setattr(weights, "MAX_BYTES", 1000)
    with pytest.raises(WeightsFileError, match="expected at most 1000 bytes, found " + ("100000" if packed else "")):
        load_weights(_module(), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz", "w.pt"])
def test_a_damaged_file_is_refused_or_loads_finite_weights(tmp_path: Path, name: str) -> None:
    path, rng, module, n_refused = tmp_path / name, random.Random(name), _module(), 0
    whole = WRITERS[name](_state(_module()))
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            load_weights(module, path)
        except WeightsFileError:
            n_refused += 1
        assert all(torch.isfinite(tensor).all() for tensor in _state(module).values())
    assert n_refused > 50
