"""Each claim of docs/security.md names tests that exist."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tests.commands import PROJECT

PAGE = (PROJECT / "docs" / "security.md").read_text("utf-8")
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
FIXED = Version("2.54.0")  # CVE-2026-27482; tokens exist since 2.52


def claims() -> list[tuple[str, str]]:
    """Return the cells of each row of the tables that have tests."""
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGE, flags=re.M)
    return [row for row in rows if row != ("claim", "test") and "|" not in row[0]]


def names_of_tests(file: str) -> set[str]:
    path = PROJECT / file
    tree = ast.parse(path.read_text("utf-8")) if path.is_file() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_claim_names_a_test() -> None:
    assert len(claims()) > 30
    assert not [claim for claim, tests in claims() if not TEST.search(tests)]


@pytest.mark.cost(1, "parses the files of tests")
def test_each_named_test_exists() -> None:
    named = TEST.findall(PAGE)
    files = {file: names_of_tests(file) for file, _ in named}
    assert not [f"{file}::{name}" for file, name in named if name not in files[file]]


def test_page_names_the_known_holes() -> None:
    assert "CVE-2026-27482" in PAGE and "ShadowRay" in PAGE and "CVE-2023-48022" in PAGE


def test_ray_is_newer_than_its_known_holes() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    requirements = [Requirement(line) for extra in extras for line in extra]
    specifiers = [item.specifier for item in requirements if item.name == "ray"]
    assert specifiers
    for specifier in specifiers:
        [pin] = specifier
        assert pin.operator == "==" and Version(pin.version) >= FIXED


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_actions_are_pinned_by_commit(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    uses = [
        step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step
    ]
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in uses), uses
