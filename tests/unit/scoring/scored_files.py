"""Files to score, and their scored files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.sources.carried_columns import Carried, with_all_rows
from finsent.data.sources.files import find_texts
from finsent.data.sources.source_file import SourceFile
from finsent.scoring.parts import Parts
from finsent.scoring.score import Scorer


def find(
    *entries: Path | SourceConfig, carried: Carried = "all", **config: Any
) -> list[SourceFile]:
    """Return the files of sources with the columns that scored files carry."""
    sources = [e if isinstance(e, SourceConfig) else SourceConfig(uri=str(e)) for e in entries]
    data = DataConfig(**{"text_column": "text", "label_column": "label", **config})
    files = find_texts(sources, data, Path("none"), "predict.input")
    return [with_all_rows(file, carried, "predict.columns") for file in files]


def score(
    file: SourceFile, scorer: Scorer, folder: Path, format: str = "parquet", rows: int = 3
) -> Path:
    """Score a file in parts of a few rows, and return the path of the scored file."""
    parts, target = Parts(folder / "parts", rows), folder / f"scored.{format}"
    parts.folder.mkdir(parents=True, exist_ok=True)
    parts.open("one")
    for _ in parts.score(file, lambda tables: map(scorer, tables)):
        pass
    parts.merge(file, target, format)
    return target


class Row(NamedTuple):
    """A row of an input file."""

    id: str
    text: str
    is_broken: bool = False


def csv_of(rows: list[Row], delimiter: str = ",") -> bytes:
    """Return the content of a CSV file. A broken row has one field too many."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["id", "text"])
    for row in rows:
        writer.writerow([row.id, row.text, "one too many"] if row.is_broken else row[:2])
    return out.getvalue().encode()


def write(path: Path, id: int = 1) -> Path:
    """Write a CSV file with one row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"id,text\n{id},Up\n")
    return path
