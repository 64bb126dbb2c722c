"""Typed results of jobs: JSON on the last line of stdout, and the list of keys in `--help`.

A result is a frozen dataclass, and its values may be dataclasses and records. `Annotated[TYPE,
"NOTE"]` describes a key where its name does not.
"""

from __future__ import annotations

import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Result: TypeAlias = dict[str, Any]  # as the line of JSON has it
# What a job returns; a dataclass may contain records.
Output: TypeAlias = "DataclassInstance | Mapping[str, object]"
# How a job declares its result: the class, or the class by action or flag ("": without one).
ResultTypes = type | Mapping[str, type] | str

_WIDTH = 100


def as_result(output: Output) -> Result:
    """Return what a job returns as a JSON object."""
    result: Result = to_jsonable_python(output)
    return result


def result_lines(declared: ResultTypes, keeps_run: bool) -> Iterator[str]:
    """Yield the lines of `--help` with the keys of a job's result.

    Args:
        declared: a string, which benchmarks use, is the list of keys itself.
        keeps_run: whether the result has the key `run_dir`.
    """
    if isinstance(declared, str):
        yield textwrap.fill(f"Result: {declared}", _WIDTH)
        return
    by_action = declared if isinstance(declared, Mapping) else {"": declared}
    for action, result_type in by_action.items():
        is_dry = action.startswith("--")  # a flag for a dry run, which keeps no run
        common = ["run_dir", "seconds"] if keeps_run and not is_dry else ["seconds"]
        title = f"Result of {action}" if action else "Result"
        keys = ", ".join([*_described_keys(result_type), *common])
        yield textwrap.fill(f"{title}: {keys}", _WIDTH)


def _described_keys(result_type: type) -> Iterator[str]:
    hints = typing.get_type_hints(result_type, include_extras=True)
    for field in fields(result_type):
        notes = [note for note in typing.get_args(hints[field.name])[1:] if isinstance(note, str)]
        yield f"{field.name} ({notes[0]})" if notes else field.name
