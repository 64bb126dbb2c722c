"""Imports inside functions: a comment gives the cost that each of them saves, or another reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import PROJECT

pytestmark = pytest.mark.unit

PRODUCT = ("cluster", "finsent", "ray_jobs", "serve_app", "tune")


def function_imports(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """Yield each block of adjacent imports inside a function."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            for body in ("body", "orelse", "finalbody"):
                yield from _blocks(getattr(node, body, None))


def _blocks(statements: object) -> Iterator[list[ast.stmt]]:
    block: list[ast.stmt] = []
    for statement in statements if isinstance(statements, list) else []:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            block.append(statement)
        elif block:
            yield block
            block = []
    if block:
        yield block


def unexplained(source: str) -> set[int]:
    """Return the first lines of the blocks without a comment in the block or right above it."""
    lines = source.splitlines()
    return {
        block[0].lineno
        for block in function_imports(ast.parse(source))
        if not any("#" in line for line in lines[block[0].lineno - 2 : block[-1].end_lineno])
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (["import ray  # 1 s"], set()),
        (["# Ray: 1 s.", "import ray", "import ray.data"], set()),
        (["import ray", "from ray import data"], {2}),
        (["import ray  # 1 s", "x = 1", "import torch"], {4}),
        (["if x:", "    import ray"], {3}),
    ],
)
def test_unexplained_imports_are_detected(body: list[str], expected: set[int]) -> None:
    assert unexplained("\n".join(["def f():", *(f"    {line}" for line in body)])) == expected


def test_each_import_in_a_function_has_a_reason() -> None:
    files: list[Path] = [file for name in PRODUCT for file in (PROJECT / name).rglob("*.py")]
    imports = {
        f"{file.relative_to(PROJECT)}:{line}"
        for file in files
        for line in unexplained(file.read_text(encoding="utf-8"))
    }
    assert not imports, "import at the top, or write a comment: which import costs what"
