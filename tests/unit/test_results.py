"""Results of jobs: typed, and described in `--help` by their types."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated

import pytest

from ray_jobs.__main__ import job_names
from ray_jobs._results import as_result, result_lines


@dataclass(frozen=True)
class Inner:
    """A part of a result."""

    rows: int


@dataclass(frozen=True)
class Outer:
    """A result."""

    model_dir: str
    epoch: Annotated[int, "the best"]
    inner: Inner


def test_keys_are_described_by_their_types() -> None:
    assert [*result_lines(Outer, keeps_run=True)] == [
        "Result: model_dir, epoch (the best), inner, run_dir, seconds"
    ]
    assert [*result_lines({"": Outer, "show": Inner}, keeps_run=False)] == [
        "Result: model_dir, epoch (the best), inner, seconds",
        "Result of show: rows, seconds",
    ]
    assert [*result_lines({"--dry-run": Inner}, keeps_run=True)] == [
        "Result of --dry-run: rows, seconds"
    ]
    assert [*result_lines("rows, seconds", keeps_run=True)] == ["Result: rows, seconds"]


def test_results_become_json() -> None:
    output = Outer("m", 2, Inner(3))
    assert as_result(output) == {"model_dir": "m", "epoch": 2, "inner": {"rows": 3}}
    assert as_result({"rows": 3}) == {"rows": 3}


def typed_results() -> Iterator[tuple[str, type]]:
    for name in job_names():
        declared = importlib.import_module(f"ray_jobs.{name}").JOB.result
        types = declared.values() if isinstance(declared, Mapping) else [declared]
        yield from ((name, kind) for kind in types)


@pytest.mark.parametrize(("job", "kind"), list(typed_results()))
def test_help_names_each_key_of_a_typed_result(job: str, kind: type) -> None:
    assert is_dataclass(kind), f"{job} declares no typed result"
    text = " ".join(result_lines(kind, keeps_run=False)).replace("\n", " ")
    assert kind.__doc__, job
    assert all(field.name in text for field in fields(kind))
