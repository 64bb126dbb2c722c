"""Dataset versions with given rows."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.rows.split import SPLITS
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.manifest import MANIFEST
from finsent.files import sha256_file, write_json
from finsent.labels import LABELS
from tests.unit.datasets import input_content, manifest_content, split_content


class Row(NamedTuple):
    text: str
    label: str
    split: str = "train"
    source: str = "news.csv"

    @property
    def key(self) -> str:
        return hashlib.md5(self.text.lower().encode()).hexdigest()


Rows = Iterable[Row]


def write(
    path: Path, rows: Rows, parts: int = 1, inputs: dict[str, str] | None = None, **config: Any
) -> DatasetVersion:
    """Write a dataset version with these rows, in files by ranges of keys, as ingest does."""
    rows = sorted(rows, key=lambda row: (row.key, row.label))
    splits: dict[str, Any] = {}
    for split in SPLITS:
        own = [row for row in rows if row.split == split]
        files = [
            write_part(
                path, split, number, [r for r in own if int(r.key[0], 16) * parts // 16 == number]
            )
            for number in range(parts)
        ]
        labels = Counter(row.label for row in own)
        splits[split] = split_content(
            len(own), labels={label: labels[label] for label in LABELS}, files=files
        )
    counts = {
        "rows_in": len(rows) + 2,
        "kept": len(rows),
        "rejected": 2,
        "duplicates": 0,
        "conflicts": 0,
        "excluded": 0,
    }
    manifest = manifest_content(
        name="tests",
        version=path.name,
        inputs=[
            input_content(name, sha256=sha256, rows=3) for name, sha256 in (inputs or {}).items()
        ],
        counts=counts,
        splits=splits,
        config=config,
    )
    write_json(path / MANIFEST, manifest)
    return DatasetVersion.open(path)


def write_part(path: Path, split: str, number: int, rows: list[Row]) -> dict[str, Any]:
    file = path / split / f"part-{number:05d}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "key": [row.key for row in rows],
        "text": [row.text for row in rows],
        "label": [row.label for row in rows],
        "source": [row.source for row in rows],
    }
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    table = table.append_column("row", pa.array(range(len(rows)), pa.int64()))
    table = table.append_column("agreement", pa.nulls(len(rows), pa.float32()))
    pq.write_table(table, file, compression="zstd", row_group_size=7)
    return {"path": f"{split}/{file.name}", "rows": len(rows), "sha256": sha256_file(file)}


def random_rows(seed: int, count: int = 300) -> set[Row]:
    """Return rows. Many texts occur with other seeds too, and some have several labels."""
    rng = random.Random(seed)
    rows = {
        Row(
            f"Unit {(number := rng.randrange(200))} opened",
            rng.choice(LABELS),
            SPLITS[number % 3] if rng.random() < 0.9 else rng.choice(SPLITS),
            rng.choice(["a.csv", "b.csv", f"only-{seed}.csv"]),
        )
        for _ in range(count)
    }
    return {
        *{(row.text, row.label): row for row in rows}.values()
    }  # as `conflicts=keep` leaves them
