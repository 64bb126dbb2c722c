"""Private parts of libraries are used in `finsent/adapters` alone, where tests guard them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import PROJECT

pytestmark = pytest.mark.unit

OWN = ("benchmarks", "cluster", "finsent", "ray_jobs", "serve_app", "tune")
GENERATED = PROJECT / "serve_app/proto"
ADAPTERS = PROJECT / "finsent/adapters"
TYPES = "_typeshed"  # types for checkers, which no program imports


def product_files() -> list[Path]:
    """Return the Python files of the product that use libraries by public names only."""
    files = (file for package in OWN for file in sorted((PROJECT / package).rglob("*.py")))
    return [file for file in files if not {GENERATED, ADAPTERS} & {*file.parents}]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_uses(tree: ast.Module) -> Iterator[str]:
    """Yield the private modules and names of other packages that a module uses."""
    libraries = set[str]()  # local names of libraries and of what is imported from them
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module, name in imported(node):
                libraries.add(name)
                if any(map(is_private, module.split("."))):
                    yield module
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for attribute in attributes:
        if is_private(attribute.attr) and root_name(attribute) in libraries:
            yield ast.unparse(attribute)


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield the dotted names that a statement imports from libraries, and their local names."""
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names:
        module = prefix + alias.name
        if module.partition(".")[0] not in (*OWN, TYPES):
            is_whole = not prefix and not alias.asname
            yield module, alias.name.partition(".")[0] if is_whole else alias.asname or alias.name


def root_name(node: ast.expr) -> str:
    """Return the name that a chain of attributes, calls and items begins with; empty: none."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize(
    ("code", "uses"),
    [
        ("from ray._private import worker", ["ray._private.worker"]),
        ("import ray.train.v2._internal.util", ["ray.train.v2._internal.util"]),
        ("from optuna.study import _optimize", ["optuna.study._optimize"]),
        ("import wandb\nwandb.run._settings.mode", ["wandb.run._settings"]),
        ("from ray import serve\nserve.context().x._client()", ["serve.context().x._client"]),
        ("from finsent.config import _hidden\nself._x, _hidden._y", []),
        ("import ray\nray.__version__", []),
    ],
)
def test_private_uses_are_detected(code: str, uses: list[str]) -> None:
    assert [*private_uses(ast.parse(code))] == uses


def test_only_adapters_use_private_parts_of_libraries() -> None:
    uses = {
        f"{file.relative_to(PROJECT)}: {use}"
        for file in product_files()
        for use in private_uses(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert not uses, "move the use to finsent/adapters, with a test"
