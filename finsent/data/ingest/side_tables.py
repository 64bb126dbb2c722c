"""Side tables of a version: the rejected, conflicting and excluded rows, with their reasons."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.rows.clean import REJECTED
from finsent.files import staged_file

_POSITION = [("source", pa.string()), ("row", pa.int64())]
_LABELED = [("key", pa.string()), ("text", pa.string()), ("label", pa.string()), *_POSITION]
SIDE_SCHEMAS = {
    "rejected": REJECTED.set(0, pa.field("source", pa.string())),
    "conflicts": pa.schema([*_LABELED, ("raw_text", pa.string()), ("decision", pa.string())]),
    "excluded": pa.schema(
        [
            *_LABELED,
            ("raw_text", pa.string()),
            ("reason", pa.string()),
            ("match_source", pa.string()),  # position of the text that it equals or is near to
            ("match_row", pa.int64()),
        ]
    ),
}


def merge_side_tables(out: Path, work_dir: Path) -> None:
    """Join the parts of each side table into one Parquet file."""
    for name in SIDE_SCHEMAS:
        merge_side_table(out, work_dir, name)


def merge_side_table(out: Path, work_dir: Path, name: str) -> Path:
    """Join the parts of a side table into one Parquet file, with one part in memory at a time."""
    path = out / f"{name}.parquet"
    with (
        staged_file(path) as staged,
        pq.ParquetWriter(staged, SIDE_SCHEMAS[name], compression="zstd") as writer,
    ):
        for file in sorted((work_dir / name).glob("[!.]*.parquet")):
            writer.write_table(pq.read_table(file, partitioning=None))
    return path
