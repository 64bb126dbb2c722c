"""Optional packages: each belongs to an extra of the project, and its absence is one line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from finsent.errors import InputError, one_line
from finsent.extras import EXTRAS, is_installed, require

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_each_extra_is_declared() -> None:
    declared = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    assert {*EXTRAS.values()} <= declared.keys()


def test_missing_module_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "no_such_module", "lora")
    assert not is_installed("no_such_module") and not is_installed("no_such_package.module")
    require("json", "a.b=1")
    with pytest.raises(InputError) as caught:
        require("no_such_module", "a.b=1", "set it to null")
    assert str(caught.value) == (
        "a.b=1: needs the package no_such_module. Run pip install 'finsent[lora]', or set it to "
        "null."
    )


def test_messages_of_libraries_become_one_line() -> None:
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 300
