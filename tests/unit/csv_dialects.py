"""Rows of CSV files whose source has settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finsent.errors import InputError
from tests.unit.source_files import Row, configured

SWALLOWED = "swallowed_rows: a stray quote made one text of several records"


def read(path: Path, **settings: Any) -> list[Row]:
    """Return the rows of a file that is read with its source's settings, in the reader's order."""
    usual = {"text": "text", "label": "label"}
    (file,) = configured(path.parent, {"uri": str(path), **usual, **settings})
    rows = []
    for table in file.rows(0):
        columns = [table[c].to_pylist() for c in ("row", "raw_text", "raw_label", "fault")]
        rows += [Row(*values) for values in zip(*columns, strict=True)]
    return rows


def problem(path: Path, **settings: Any) -> str:
    """Return the error of a file that cannot be read."""
    with pytest.raises(InputError) as caught:
        read(path, **settings)
    return str(caught.value)
