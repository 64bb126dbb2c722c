"""Source files, and their rows as ingest reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finsent.data.config import DataConfig, SourceConfig
from finsent.data.readers.columns import ROWS
from finsent.data.sources.files import find_sources
from finsent.data.sources.source_file import SourceFile
from finsent.errors import InputError

HEADER = "Sentence,Sentiment\n"
GOOD = HEADER + "Sales rose,positive\nSales fell,negative\n"
MIB = 1 << 20


class Row(NamedTuple):
    """A row as ingest reads it."""

    number: int
    text: str
    label: str | None = None
    fault: str | None = None


def write(folder: Path, content: str | bytes, name: str = "news.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def find_files(*sources: Path | str, **changed: Any) -> list[SourceFile]:
    listed = [SourceConfig(uri=str(source)) for source in sources]
    return find_sources(DataConfig(sources=listed, **changed), Path("no-hub-is-asked"))


def names(*sources: Path | str) -> list[str]:
    return [file.name for file in find_files(*sources)]


def read(path: Path, **changed: Any) -> list[Row]:
    """Check a file as a job does, and return its rows in the order of their numbers."""
    (file,) = find_files(path, **changed)
    rows = []
    for table in file.rows(7):
        assert table.schema == ROWS
        assert set(table["source"].to_pylist()) <= {7}
        columns = [table[c].to_pylist() for c in ("row", "raw_text", "raw_label", "fault")]
        rows += [Row(*values) for values in zip(*columns, strict=True)]
    return sorted(rows)


def configured(tmp_path: Path, *sources: dict[str, Any]) -> list[SourceFile]:
    return find_sources(
        DataConfig(sources=[SourceConfig(**settings) for settings in sources]), tmp_path
    )


def problem(path: Path | str, **changed: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(Path(path), **changed)
    return str(caught.value)
