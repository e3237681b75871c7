"""The structure of the project: layout, import order, cheap imports, front doors, errors, safe loading."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("convert", "deploy", "models")
HEAVY = ("matplotlib", "numba", "pandas", "samna", "scipy", "sinabs", "torch")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.suffix in suffixes]
    return [path for path in found if "__pycache__" not in path.parts]


def imported_names(path: Path) -> Iterator[str]:
    """Yield each module that a file imports, also by ``import_module("...")``; relative imports are left out."""
    for node in syntax(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and node.args
            and dotted(node.func).rpartition(".")[2] in ("import_module", "__import__")
        ):
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


@functools.cache
def syntax(path: Path) -> tuple[ast.AST, ...]:
    """Return every node of a file's syntax that is a call or an import."""
    kinds = (ast.Import, ast.ImportFrom, ast.Call)
    return tuple(node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


def dotted(node: ast.expr) -> str:
    """Return a name with its dots; what is no name, such as a call, is an empty part of it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def importers(module: str, paths: list[Path]) -> set[str]:
    name_of_package = module.partition(".")[0]
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if name_of_package in path.read_text()  # most files need not be parsed
        and any(name == module or name.startswith(module + ".") for name in imported_names(path))
    }


def heavy_after(code: str) -> list[str]:
    """Return the heavy packages that a fresh interpreter has loaded after running ``code``."""
    report = f"import sys; sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return done.stderr.split()


# layout


def test_the_packages_of_pyproject_are_the_folders_on_disk() -> None:
    folders = {path.parent.relative_to(ROOT) for path in sources(*TOPS)}
    on_disk = {".".join(("spikeport", *folder.parts)) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == on_disk
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {f"spikeport.{top}": top for top in TOPS}
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)
    assert all((ROOT / top / "py.typed").is_file() for top in TOPS)


def test_every_file_beside_the_code_is_package_data() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    packed = set()
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:])
        packed |= {path for pattern in (*data["*"], *data.get(package, ())) for path in folder.glob(pattern)}
    beside = {path for top in TOPS for path in (ROOT / top).rglob("*") if path.is_file() and path.suffix != ".py"}
    missing = {path.relative_to(ROOT) for path in beside - packed if "__pycache__" not in path.parts}
    assert not missing


def test_links_for_type_checkers_are_relative_and_lead_to_the_packages() -> None:
    links = {path.name: path for path in (ROOT / ".links" / "spikeport").iterdir()}
    assert sorted(links) == list(TOPS)
    for name, link in links.items():
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve() == ROOT / name


def test_every_file_is_under_400_lines() -> None:
    paths = sources(*TOPS, "tests", "examples", suffixes=(".py", ".js", ".css", ".html"))
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in paths}
    assert not {name: n_lines for name, n_lines in lengths.items() if n_lines >= 400}


def test_no_module_has_a_name_that_says_nothing() -> None:
    nothing = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "base", "misc"}
    modules = {path.stem for path in sources(*TOPS)} | {path.parent.name for path in sources(*TOPS)}
    assert not modules & nothing


# import order and cheap imports


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", [f"spikeport.{top}" for top in TOPS])
def test_importing_a_package_is_cheap(package: str) -> None:
    assert heavy_after(f"import {package}") == []


def test_asking_the_command_for_help_is_cheap() -> None:
    code = (
        "import sys\nfrom spikeport.deploy.cli import main\nsys.argv = ['spikeport', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code"
    )
    assert heavy_after(code) == []


def test_the_simulator_and_the_driver_are_imported_in_one_file_each() -> None:
    assert importers("sinabs", sources(*TOPS)) <= {"convert/dense.py", "deploy/bench/peers.py"}
    # Where the virtual board is tested, it stands in for the driver while the vendor's back-end is imported.
    apart = [path for path in sources(*TOPS, "tests", "examples") if path.parent != ROOT / "tests/deploy/virtual"]
    assert importers("samna", apart) <= {"deploy/devkit.py"}
    assert not importers("sinabs.backend", apart)


# front doors


def front_door(package: str) -> types.ModuleType:
    return importlib.import_module(f"spikeport.{package}")


@pytest.mark.parametrize("package", TOPS)
def test_all_lists_exactly_what_the_front_door_offers(package: str) -> None:
    door = front_door(package)
    assert len(door.__all__) == len(set(door.__all__)) > 0
    assert [name for name in door.__all__ if not hasattr(door, name)] == []
    assert sorted(door._offers) == sorted(door.__all__)
    assert set(door.__all__) <= set(dir(door))
    with pytest.raises(AttributeError, match=f"module 'spikeport.{package}' has no attribute 'nothing'"):
        _ = door.nothing


def test_a_module_is_imported_when_one_of_its_names_is_first_used() -> None:
    source = """
import sys
import spikeport.deploy
assert "spikeport.deploy.plan" not in sys.modules and "spikeport.convert" not in sys.modules
import spikeport.deploy.plan
from spikeport.deploy import plan
assert callable(plan) and plan is spikeport.deploy.plan is sys.modules["spikeport.deploy.plan"].plan
"""
    subprocess.run([sys.executable, "-c", source], check=True)


@pytest.mark.parametrize("package", TOPS)
def test_everything_public_says_what_it_returns(package: str) -> None:
    door = front_door(package)
    for name in door.__all__:
        value = getattr(door, name)
        if not inspect.isclass(value) and not inspect.isfunction(value):
            continue
        # A dataclass without a docstring gets its signature for one.
        assert value.__doc__, name
        assert not value.__doc__.startswith(f"{name}("), name
        if inspect.isfunction(value):
            assert len(inspect.signature(value).parameters) <= 6, name


# errors


@pytest.mark.parametrize("package", TOPS)
def test_every_error_has_an_exit_code_a_builtin_kind_and_a_place_in_the_tree(package: str) -> None:
    module = importlib.import_module(f"spikeport.{package}.errors")
    classes = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Exception)]
    (base,) = (cls for cls in classes if cls.__bases__ == (Exception,))
    assert base.__name__ == f"{package.capitalize()}Error"
    for cls in classes:
        assert issubclass(cls, base)
        assert vars(cls).get("exit_code", vars(base)["exit_code"]) in range(2, 8)
        assert cls.__doc__
        assert cls.__name__ in (module.__doc__ or "")
        kinds = {kind for kind in cls.__mro__ if vars(builtins).get(kind.__name__) is kind}
        assert cls is base or kinds - {Exception, BaseException, object}, cls


# safe loading


def test_no_file_is_read_in_a_way_that_can_run_code() -> None:
    unsafe = []
    words = re.compile(r"\b(pickle|cPickle|dill|joblib|marshal|shelve|load|eval|exec)\b")
    for path in sources(*TOPS, "tests", "examples"):
        for node in syntax(path) if words.search(path.read_text()) else ():
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (
                name.split(".")[0] in ("pickle", "cPickle", "dill", "joblib", "marshal", "shelve")
                or (name == "torch.load" and options.get("weights_only") != "True")
                or (name in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False")
                or name in ("eval", "exec")
            ):
                unsafe.append(f"{path.relative_to(ROOT).as_posix()}:{node.lineno}: {name}")
    assert unsafe == []
