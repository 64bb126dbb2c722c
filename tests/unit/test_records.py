"""Records on disk: what is written is read back, and anything else is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from finsent.errors import InputError
from finsent.records import Record


class Count(Record):
    schema_version: Literal[2] = 2
    rows: int
    share: float | None = None

    @classmethod
    def remedy(cls) -> str:
        return "Count again."


def test_a_record_is_read_back(tmp_path: Path) -> None:
    Count(rows=3, share=0.5).write(tmp_path / "count.json")
    assert Count.read(tmp_path / "count.json") == Count(rows=3, share=0.5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"rows": 3, "schema_version": 1}', r"count\.json: schema_version: .*2.*\. Count again\."),
        ('{"rows": "many", "schema_version": 2}', r"count\.json: rows: .*integer"),
        ('{"rows": 3, "schema_version": 2, "row": 3}', r"count\.json: row: .*not permitted"),
        ('{"schema_version": 2}', r"count\.json: rows: .*required"),
        ("[]", r"count\.json: the file: .*dictionary"),
        ("{", r"count\.json: not valid JSON"),
    ],
)
def test_what_is_no_such_record_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "count.json").write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        Count.read(tmp_path / "count.json")
    assert "\n" not in str(caught.value)
