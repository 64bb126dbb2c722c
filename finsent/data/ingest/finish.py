"""The last steps of ingest: the small tables beside the splits, and the look at label noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.config import NoiseConfig
from finsent.data.ingest.noise import report_noise
from finsent.data.rows.clean import REJECTED
from finsent.data.rows.split import SPLITS
from finsent.files import staged_file

_PLACE = [("source", pa.string()), ("row", pa.int64())]
_LABELLED = [("key", pa.string()), ("text", pa.string()), ("label", pa.string()), *_PLACE]
SIDE_SCHEMAS = {
    "rejected": REJECTED.set(0, pa.field("source", pa.string())),
    "conflicts": pa.schema([*_LABELLED, ("raw_text", pa.string()), ("decision", pa.string())]),
    "excluded": pa.schema(
        [
            *_LABELLED,
            ("raw_text", pa.string()),
            ("reason", pa.string()),
            ("match_source", pa.string()),  # where the text is that it equals or is near to
            ("match_row", pa.int64()),
        ]
    ),
}
NOISE_COLUMNS = ["key", "text", "label", "group", "source"]


def merge_side_tables(out: Path, work: Path) -> None:
    """Join the parts of each small table into one file."""
    for name in SIDE_SCHEMAS:
        merge_side_table(out, work, name)


def merge_side_table(out: Path, work: Path, name: str) -> Path:
    """Join the parts of a small table into one file, one part in memory at a time."""
    path = out / f"{name}.parquet"
    with (
        staged_file(path) as staged,
        pq.ParquetWriter(staged, SIDE_SCHEMAS[name], compression="zstd") as writer,
    ):
        for part in sorted((work / name).glob("[!.]*.parquet")):
            writer.write_table(pq.read_table(part, partitioning=None))
    return path


def look_for_noise(version_dir: Path, config: NoiseConfig) -> dict[str, Any]:
    """Write `label_noise.parquet`: likely wrong labels among a sample of the rows.

    The sample is the rows with the smallest keys. Keys are hashes: it is as good as a random one,
    and always the same.

    Returns:
        The manifest's entry.
    """
    rows = _smallest_keys(version_dir, config.max_rows)
    table, entry = report_noise(rows, config)
    pq.write_table(table, version_dir / "label_noise.parquet", compression="zstd")
    return entry


def _smallest_keys(version_dir: Path, count: int) -> pa.Table:
    """Rows of all splits in the order of their keys, the first `count`."""
    parts = sorted(
        {file.name for name in SPLITS for file in (version_dir / name).glob("*.parquet")}
    )
    tables: list[pa.Table] = []
    for part in parts:  # a part holds a range of keys, in all splits alike
        tables += [
            pq.read_table(file, columns=NOISE_COLUMNS, partitioning=None)
            for name in SPLITS
            if (file := version_dir / name / part).is_file()
        ]
        if sum(map(len, tables)) >= count:
            break
    return pa.concat_tables(tables).sort_by("key").slice(0, count)
