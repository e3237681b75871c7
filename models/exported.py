"""Networks that ``torch.export.save`` wrote, read as data: JSON and raw numbers, nothing that could run."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .aten import DTYPES, operation, operator_problem
from .errors import NetworkFileError
from .npz import ZIP_DAMAGE

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_BYTES = 1 << 30

_EXPORT = 'Try torch.export.save(torch.export.export(model.eval(), (example,)), "net.pt2") with torch 2.9 or later.'
_DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError, RecursionError)


def load_exported(path: str | Path) -> tuple[nn.Module, tuple[int, ...]]:
    """Return the network in a ``.pt2`` file, as a module that takes batches of any size, and the shape of one sample.

    It computes and cannot be trained: its tensors are buffers. Tensors that the file holds as pickles are
    refused: reading them could run code.
    Raises: NetworkFileError where the file is missing, too large, damaged, of another format, or holds pickles or
    operators that are not read.
    """
    file = Path(path)
    contents = _contents(file)
    try:
        program = _Program(file.name, contents)
        module = _module(program)
        _dry_run(module, program)
    except NetworkFileError:
        raise
    except _DAMAGE as cause:
        lines = str(cause).strip().splitlines() if not isinstance(cause, LookupError) else []
        reason = f"{type(cause).__name__}: {lines[0][:100]}" if lines else f"{type(cause).__name__} {cause!s:.60}"
        raise NetworkFileError(
            f"{file.name}: expected a network that torch.export wrote, found a damaged one ({reason}). {_EXPORT}"
        ) from cause
    return module, tuple(program.input_sizes[1:])


def _contents(file: Path) -> dict[str, bytes]:
    """Return the members of the archive by name, without the folder that all of them are in."""
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise NetworkFileError(f"{file.name}: expected an exported network there, found {found}. Try another path.")
    size = file.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            size = max(size, sum(entry.file_size for entry in entries))
            wanted = [entry for entry in entries if not entry.filename.endswith(".pt")]  # sample inputs, a pickle
            contents = {} if size > MAX_BYTES else {entry.filename: archive.read(entry) for entry in wanted}
    except ZIP_DAMAGE as cause:
        raise NetworkFileError(
            f"{file.name}: expected a network that torch.export wrote, found a damaged or foreign file. {_EXPORT}"
        ) from cause
    if size > MAX_BYTES:
        raise NetworkFileError(f"{file.name}: expected at most {MAX_BYTES} bytes, found {size}. Try a smaller network.")
    members = {name.partition("/")[2]: content for name, content in contents.items()}
    if members.get("archive_format", b"").strip() != b"pt2" or "models/model.json" not in members:
        raise NetworkFileError(f"{file.name}: expected a network that torch.export wrote, found another zip. {_EXPORT}")
    return members


class _Program:
    """The parts of an exported program: its nodes, its tensors by the name that nodes read, its input and output."""

    def __init__(self, name: str, members: Mapping[str, bytes]) -> None:
        model = json.loads(members["models/model.json"])
        if model["schema_version"]["major"] != 8:
            found = f"found {model['schema_version']['major']!r:.20}"
            raise NetworkFileError(f"{name}: expected version 8 of torch's export format, {found}. {_EXPORT}")
        graph, signature = model["graph_module"]["graph"], model["graph_module"]["signature"]
        self.name = name
        self.nodes: list[dict[str, Any]] = graph["nodes"]
        self.tensors: dict[str, torch.Tensor] = {}
        inputs = []
        stored = {kind: _Stored(name, kind, members) for kind in ("weights", "constants")}
        for spec in signature["input_specs"]:
            ((kind, content),) = spec.items()
            if kind == "user_input":
                inputs.append(content["arg"]["as_tensor"]["name"])
            elif kind in ("parameter", "buffer", "tensor_constant"):
                held = content[f"{kind}_name"]
                home = stored["weights" if held in stored["weights"].config else "constants"]
                self.tensors[content["arg"]["name"]] = home.tensor(held)
            else:
                raise NetworkFileError(f"{name}: expected tensors for inputs, found a {kind}. {_EXPORT}")
        outputs = [content for spec in signature["output_specs"] for kind, content in spec.items()]
        others = [kind for spec in signature["output_specs"] for kind in spec if kind != "user_output"]
        if len(inputs) != 1 or len(outputs) != 1 or others:
            found = f"{len(inputs)} inputs, {len(outputs)} outputs" + "".join(f", a {kind}" for kind in others)
            raise NetworkFileError(
                f"{name}: expected a network with one input and one output, found {found}. "
                "Try a wrapper with a forward that takes one tensor and returns one, in evaluation mode."
            )
        self.input, self.output = inputs[0], outputs[0]["arg"]["as_tensor"]["name"]
        self.input_sizes = [_size(size) for size in graph["tensor_values"][self.input]["sizes"]]
        self.fixed_batch = "as_int" in graph["tensor_values"][self.input]["sizes"][0]
        problems = [problem for node in self.nodes if (problem := operator_problem(node["target"]))]
        if problems:
            raise NetworkFileError(f"{name}: {'; '.join(dict.fromkeys(problems))}. Try plain torch layers.")


class _Stored:
    """The tensors of one folder of the archive: a list in JSON, and the raw numbers of each."""

    def __init__(self, name: str, kind: str, members: Mapping[str, bytes]) -> None:
        self.name, self.kind, self.members = name, kind, members
        self.config: dict[str, Any] = json.loads(members[f"data/{kind}/model_{kind}_config.json"])["config"]

    def tensor(self, held: str) -> torch.Tensor:
        import torch

        entry = self.config[held]
        if entry["use_pickle"]:
            raise NetworkFileError(
                f"{self.name}: '{held}' is held as a pickle, which is refused because reading it can run code. "
                "Try plain dense tensors for all parameters."
            )
        meta = entry["tensor_meta"]
        dtype = getattr(torch, DTYPES[meta["dtype"]])
        sizes, strides = ([_size(size) for size in meta[key]] for key in ("sizes", "strides"))
        raw = bytearray(self.members[f"data/{self.kind}/{entry['path_name']}"])
        if not math.prod(sizes):
            return torch.zeros(sizes, dtype=dtype)
        flat = torch.frombuffer(raw, dtype=dtype)
        offset = _size(meta["storage_offset"])
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if min([*sizes, *strides, offset]) < 0 or last >= flat.numel():
            raise ValueError(f"'{held:.60}' reaches beyond its numbers")
        return flat.as_strided(sizes, strides, offset).clone()


def _size(size: Mapping[str, Any]) -> int:
    """Return a size of the file; of one that may vary, the one it was exported with."""
    return int(size["as_int"] if "as_int" in size else size["as_expr"]["hint"]["as_int"])


def _module(program: _Program) -> nn.Module:
    import torch
    from torch import nn

    class ExportedNetwork(nn.Module):
        """The operators of an exported program, run one after another."""

        def __init__(self) -> None:
            super().__init__()
            self.exported_batch = program.input_sizes[0] if program.fixed_batch else None
            self.input_name, self.output_name = program.input, program.output
            self.operations = nn.ModuleList(operation(node) for node in program.nodes)
            self.names = list(program.tensors)
            for index, tensor in enumerate(program.tensors.values()):
                self.register_buffer(f"tensor{index}", tensor)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.exported_batch is None or len(x) == self.exported_batch:
                return self._run(x)
            missing = -len(x) % self.exported_batch
            full = torch.cat([x, x[:1].expand(missing, *x.shape[1:])])
            return torch.cat([self._run(part) for part in torch.split(full, self.exported_batch)])[: len(x)]

        def _run(self, x: torch.Tensor) -> torch.Tensor:
            values = {name: getattr(self, f"tensor{index}") for index, name in enumerate(self.names)}
            values[self.input_name] = x
            for step in self.operations:
                step(values, x)
            result: torch.Tensor = values[self.output_name]
            return result

    return ExportedNetwork().eval()


def _dry_run(module: nn.Module, program: _Program) -> None:
    """Run the program without numbers, so that damage and sizes beyond reason are found when it is loaded."""
    import copy

    import torch

    hollow = copy.deepcopy(module).to("meta")
    with torch.no_grad():
        result = hollow(torch.empty(program.input_sizes, device="meta"))
    if not isinstance(result, torch.Tensor):
        raise TypeError("no tensor comes out")
