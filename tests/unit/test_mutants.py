"""The list of planted faults fits the project, and its runner tells caught from survived."""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.assurance.mutants import (
    PROJECT,
    Mutant,
    copied,
    judge,
    main,
    read_mutants,
    run_tests,
)

pytestmark = pytest.mark.cost(4, "starts pytest")

MUTANTS = read_mutants()


def test_there_are_forty_with_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) == 41


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_fault_can_be_planted(mutant: Mutant) -> None:
    assert mutant.problem(PROJECT) is None
    with copied(PROJECT, [mutant.file]) as copy:
        mutant.plant(copy)
        planted = (copy / mutant.file).read_text(encoding="utf-8")
    assert planted != (PROJECT / mutant.file).read_text(encoding="utf-8")
    if mutant.file.endswith(".py"):
        ast.parse(planted)  # a fault, not a file that cannot be imported
    assert mutant.tests
    for test in mutant.tests:
        path, _, node = test.partition("::")
        source = (PROJECT / path).read_text(encoding="utf-8")
        assert not node or re.search(rf"def {node.partition('[')[0]}\(", source), test


def test_text_that_is_not_there_once_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    twice = Mutant("twice", "a.py", "x = 1", "x = 2", ["tests"])
    assert "occurs 2 times in a.py" in str(twice.problem(tmp_path))
    missing = Mutant("gone", "b.py", "x", "y", ["tests"])
    assert "no such file" in str(missing.problem(tmp_path))
    assert main(["nonesuch"]) == 2


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [
        (0, "3 passed", ("survived", None)),
        (1, "FAILED t/a.py::b[c d] - assert 1", ("caught", "t/a.py::b[c d]")),
        (2, "ERROR t/a.py - SyntaxError", ("caught", "t/a.py")),
        (1, "ERROR t/a.py::b\n", ("caught", "t/a.py::b")),
        (4, "ERROR: file or directory not found: t/c.py", ("not run", None)),
        (5, "no tests ran", ("not run", None)),
    ],
)
def test_outcomes(code: int, output: str, expected: tuple[str, str | None]) -> None:
    assert judge(code, output) == expected


def test_a_fault_is_caught_in_a_copy_and_nothing_is_left_running(tmp_path: Path) -> None:
    (tmp_path / "product.py").write_text("ANSWER = 42\n")
    (tmp_path / "test_it.py").write_text(
        "import pathlib, subprocess\n"
        "from product import ANSWER\n"
        "def test_answer():\n"
        "    job = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(job.pid))\n"
        "    assert ANSWER == 42\n"
    )
    mutant = Mutant("wrong", "product.py", "42", "41", ["test_it.py"])
    with copied(tmp_path, ["product.py", "test_it.py"]) as copy:
        mutant.plant(copy)
        outcome = run_tests("wrong", copy, mutant.tests, limit=60)
    assert (outcome.status, outcome.test) == ("caught", "test_it.py::test_answer")
    assert "42" in (tmp_path / "product.py").read_text()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int((tmp_path / "pid").read_text())).wait(timeout=50)
