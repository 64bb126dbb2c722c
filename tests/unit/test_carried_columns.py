"""Columns that predict carries to the scored file, in every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pytest

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.sources.carried_columns import with_all_rows
from finsent.data.sources.files import find_texts
from tests.unit.source_files import write

RECORDS = [{"id": "A", "text": "Up"}, {"id": "B", "text": "Down"}]
ESCAPED = 'id,text\n"A","Up \\"so\\""\nB,Down\n'


def carried(path: Path, **settings: Any) -> list[dict[str, Any]]:
    source = SourceConfig(**{"uri": str(path), "text": "text", **settings})
    (file,) = find_texts([source], DataConfig(), path.parent, "predict.input")
    file = with_all_rows(file, "all", "predict.carry")
    return [row for table in file.rows(0) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("a.json", json.dumps(RECORDS), {}),
        ("a.csv", ESCAPED, {"escape": "\\"}),
        ("b.csv", "sep=;\nid;text\nA;Up\nB;Down\n", {}),
        ("c.csv", "A,Up\nB,Down\n", {"header": "none", "text": 2}),
        ("a.feather", "", {}),
    ],
)
def test_ids_stay_with_their_rows(
    tmp_path: Path, name: str, content: str, settings: dict[str, Any]
) -> None:
    path = write(tmp_path, content, name)
    if name == "a.feather":
        pyarrow.feather.write_feather(pa.Table.from_pylist(RECORDS), str(path))
    rows = carried(path, **settings)
    key = "input:1" if settings.get("header") else "input:id"
    ids = [row[key] for row in rows]
    assert [quoted.strip('"') for quoted in ids] == ["A", "B"]
    assert [row["raw_text"][:2] for row in rows] == ["Up", "Do"]


def test_blank_lines_of_an_odd_csv_of_one_column_are_rows(tmp_path: Path) -> None:
    path = write(tmp_path, 'text\n"Up" so\n\nDown\n')
    rows = carried(path, quote="none")
    assert [(row["row"], row["raw_text"]) for row in rows] == [
        (2, '"Up" so'),
        (3, ""),
        (4, "Down"),
    ]
