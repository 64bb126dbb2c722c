"""The locked versions are those that pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.commands import PROJECT

PROJECT_TABLE = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]


def locked(name: str) -> dict[str, list[Requirement]]:
    """Read a lock file: requirements by canonical name, several where markers differ."""
    pins: dict[str, list[Requirement]] = {}
    for line in (PROJECT / name).read_text("utf-8").splitlines():
        if match := re.match(r"[A-Za-z0-9][^\\#]*", line):
            pin = Requirement(match[0].strip())
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def requirements(*extras: str) -> Iterator[Requirement]:
    tables = [PROJECT_TABLE["dependencies"]]
    tables += [PROJECT_TABLE["optional-dependencies"][extra] for extra in extras]
    for table in tables:
        for requirement in map(Requirement, table):
            if requirement.name != "finsent":
                yield requirement


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("constraints.txt", tuple(PROJECT_TABLE["optional-dependencies"])),
        ("requirements.lock", ("platform", "serve")),
        ("cluster/images/serve.lock", ("serve",)),
    ],
)
def test_each_requirement_is_locked_within_its_range(lock: str, extras: tuple[str, ...]) -> None:
    pins = locked(lock)
    wrong = []
    for requirement in requirements(*extras):
        versions = [
            specifier.version
            for pin in pins.get(canonicalize_name(requirement.name), [])
            for specifier in pin.specifier
        ]
        if not versions or not all(map(requirement.specifier.contains, versions)):
            wrong.append(f"{requirement}: {versions or 'absent'}")
    assert not wrong, f"{lock} is out of date; run `make lock`"


@pytest.mark.parametrize("lock", ["requirements.lock", "cluster/images/serve.lock"])
def test_locks_hold_the_same_versions(lock: str) -> None:
    constraints = locked("constraints.txt")
    for name, pins in locked(lock).items():
        assert {str(pin.specifier) for pin in pins} <= {
            str(pin.specifier) for pin in constraints[name]
        }
