"""The zoo: each network runs on the input it names, and one of the user's own is built or refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from spikeport.models.digits_cnn import digits_cnn, strided_digits_cnn
from spikeport.models.errors import ModelNameError, NetworkFileError
from spikeport.models.gesture_cnn import GESTURES, gesture_cnn
from spikeport.models.zoo import ZOO, load_network


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in module.parameters()]


@pytest.mark.parametrize("name", ZOO)
def test_every_network_takes_its_input_and_gives_its_classes(name: str) -> None:
    network = load_network(name)
    assert network.input_shape == ZOO[name].input_shape
    assert network.classes == ZOO[name].classes
    assert len(set(network.classes)) == len(network.classes)
    module = network.module.eval()
    with torch.no_grad():
        out = module(torch.rand(2, *ZOO[name].input_shape, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (2, len(network.classes))
    assert (out >= 0).all()  # each ends in a ReLU, as spikes have no sign
    assert not [key for key in module.state_dict() if key.endswith("bias")]
    assert load_network(name).module is not network.module


@pytest.mark.parametrize(("channels", "size"), [(1, 34), (2, 34), (1, 64), (2, 64)])
def test_the_digits_cnn_is_the_tutorials(channels: int, size: int) -> None:
    module = digits_cnn(channels, size=size)
    flat = {34: 64, 64: 576}[size]
    assert _shapes(module) == [(8, channels, 3, 3), (32, 8, 3, 3), (16, 32, 3, 3), (32, flat), (10, 32)]
    convolution = ["Conv2d", "ReLU", "AvgPool2d"]
    linear = ["Linear", "ReLU"]
    assert [type(layer).__name__ for layer in module] == [*convolution * 3, "Dropout2d", "Flatten", *linear * 2]
    assert {layer.p for layer in module if isinstance(layer, nn.Dropout2d)} == {0.5}
    assert {layer.kernel_size for layer in module if isinstance(layer, nn.AvgPool2d)} == {2}


def test_the_strided_digits_cnn_has_the_shapes_of_its_public_weights() -> None:
    assert _shapes(strided_digits_cnn()) == [(8, 2, 3, 3), (16, 8, 3, 3), (16, 16, 3, 3), (10, 256)]


def test_the_gesture_cnn_has_nine_weight_layers() -> None:
    expected = [(16, 2, 2, 2), (16, 16, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3)]
    assert _shapes(gesture_cnn()) == [*expected, (256, 64, 2, 2), (128, 256), (11, 128)]
    assert len(GESTURES) == 11


@pytest.mark.parametrize(("channels", "size"), [(3, 34), (0, 64), (2, 28)])
def test_a_digits_cnn_that_is_none_is_refused(channels: int, size: int) -> None:
    with pytest.raises(ModelNameError, match=f"found {channels} and {size}. Try 2 and 34"):
        digits_cnn(channels, size=size)


USERS = """
from __future__ import annotations
import dataclasses, sys, torch
from my_layers import head

@dataclasses.dataclass
class Net(torch.nn.Module):
    width: int = 3
    def __post_init__(self):
        super().__init__()

def build():
    return torch.nn.Sequential(torch.nn.Flatten(), head())

def record():
    return Net()

def number():
    return 7

def broken():
    raise RuntimeError("no weights here")

def leaving():
    sys.exit("bye")

text = "no function"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_net.py").write_text(USERS)
    (tmp_path / "my_layers.py").write_text("import torch\n\ndef head():\n    return torch.nn.Linear(4, 2)\n")
    (tmp_path / "bad_net.py").write_text("def build(:\n")
    (tmp_path / "torchless.py").write_text("import no_such_package_of_mine\n")
    (tmp_path / "my_net.pyx").write_text("")
    return tmp_path


def test_a_network_of_the_users_own(folder: Path) -> None:
    search_path = list(sys.path)
    network = load_network(f"{folder}/my_net.py:build")
    assert network.module(torch.zeros(1, 2, 2)).shape == (1, 2)
    assert network.input_shape is None
    assert network.classes == ()
    assert isinstance(load_network(f"{folder}/my_net.py:record").module, nn.Module)
    assert sys.path == search_path


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "network 'digit': expected one of digits, .*my_net.py:function, .* Try digits"),
        ("resnet152", "Try digits"),
        ("", "network '': expected one of digits"),
        ("{}/my_net.py", "network 'my_net.py': expected file.py:function, found no function. Try my_net.py:build"),
        ("{}/my_net.py:", "found no function"),
        ("{}/gone.py:build", "'gone.py:build': expected a Python file, found nothing there"),
        ("{}/my_net.py:missing", "'my_net.py:missing': the file has no function 'missing'"),
        ("{}/my_net.py:text", "the file has no function 'text'"),
        ("{}/my_net.py:number", r"expected a torch.nn.Module from number\(\), found int"),
        ("{}/my_net.py:broken", "the file raised RuntimeError: no weights here. Try running it with Python"),
        ("{}/my_net.py:leaving", "the file raised SystemExit: bye"),
        ("{}/bad_net.py:build", "the file raised SyntaxError"),
        ("{}/torchless.py:build", "the file raised ModuleNotFoundError: .*no_such_package_of_mine"),
        ("{}/my_net.pyx:build", "expected a Python file that can be imported"),
    ],
)
def test_a_network_that_is_none_is_refused_in_one_sentence(folder: Path, spec: str, message: str) -> None:
    with pytest.raises(ModelNameError, match=message) as raised:
        load_network(spec.format(folder))
    assert str(folder) not in str(raised.value).replace(str(folder / "bad_net.py"), "")
    assert "Try " in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_network_of_an_importable_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text("import torch\nimport my_layers\n\ndef build():\n    return my_layers.head()\n")
    monkeypatch.chdir(folder)
    search_path = list(sys.path)
    network = load_network("my_package.nets:build")
    assert network.module(torch.zeros(1, 4)).shape == (1, 2)
    assert network.input_shape is None
    assert sys.path == search_path
    assert isinstance(load_network("torch.nn:Identity").module, nn.Identity)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "no_such_package_of_mine.nets:build",
            "expected a module 'no_such_package_of_mine.nets' that Python can import",
        ),
        ("json.no_such_module:build", "expected a module 'json.no_such_module' that Python can import, found none"),
        ("needs_more:build", "its code raised ModuleNotFoundError: .*no_such_package_of_mine"),
        ("json:no_such_function", "'json:no_such_function': the file has no function 'no_such_function'"),
        ("json:dumps", "its code raised TypeError"),
        ("collections:Counter", r"expected a torch.nn.Module from Counter\(\), found Counter"),
        ("not a name:build", "expected package.module:function, found 'not a name' for a module"),
        ("net.onnx", "expected one of digits"),
    ],
)
def test_an_importable_network_that_is_none_is_refused(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_package_of_mine\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNameError, match=message) as raised:
        load_network(spec)
    assert "Try " in str(raised.value)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_pickled_module_is_refused_with_the_way_out(suffix: str, tmp_path: Path) -> None:
    class Trap:
        """Leaves a file behind where it is unpickled."""

        def __reduce__(self) -> tuple[object, ...]:
            return open, (str(tmp_path / "sprung"), "w")

    path = tmp_path / f"net{suffix}"
    torch.save(Trap(), path)
    with pytest.raises(NetworkFileError, match=r"found a file of torch\.save: .*state_dict.*\.pt2") as raised:
        load_network(str(path))
    assert raised.value.exit_code == 6
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(NetworkFileError, match="found nothing"):
        load_network(str(tmp_path / f"gone{suffix}"))
    with pytest.raises(NetworkFileError, match="found nothing"):
        load_network(str(tmp_path / "gone.pt2"))
