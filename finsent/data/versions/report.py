"""The report of a dataset version: a page for the person who decides whether to trust it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import pyarrow.parquet as pq
import yaml
from pydantic import JsonValue

from finsent.data.config import DataConfig
from finsent.data.readers.json_values import is_json_object
from finsent.data.rows.split import SPLITS
from finsent.data.versions.manifest import Manifest
from finsent.data.versions.pictures import PICTURES
from finsent.data.versions.warnings import version_warnings
from finsent.labels import LABELS
from finsent.records import JsonObject
from finsent.reports.page import render
from finsent.reports.pictures import draw_all

Rows = Sequence[Mapping[str, object]]

_ROWS_PER_TABLE = 20
_BATCH_ROWS = 512
_FILES_PER_SPLIT = 2  # bounds the reading; a rare label may have fewer samples than it could


class SampleRow(TypedDict):
    """A row of a split."""

    key: str
    text: str
    label: str
    source: str
    row: int
    split: NotRequired[str]  # none in a split's files, which are in the split's directory


def write_report(version_dir: Path, manifest: Manifest) -> None:
    """Write `report.html` and `pictures/*.png` next to a version's Parquet files.

    The report reads only the rows that it shows, so a large version takes no longer than a small
    one.
    """
    page = render(
        "finsent.data.versions/report.html.j2",
        draw_all(PICTURES, manifest, version_dir / "pictures"),
        manifest=manifest,
        counts=manifest.counts,
        details=manifest.details,
        noise=manifest.label_noise,
        warnings=list(version_warnings(manifest)),
        samples=_sample_by_label(version_dir),
        conflicts=_read_head(version_dir / "conflicts.parquet"),
        excluded=_read_head(version_dir / "excluded.parquet"),
        rejected=_read_head(version_dir / "rejected.parquet"),
        suspects=_read_head(version_dir / "label_noise.parquet"),
        changed=_changed_settings(manifest.config),
        config=yaml.safe_dump(manifest.config, sort_keys=False, allow_unicode=True),
    )
    (version_dir / "report.html").write_text(page, encoding="utf-8")


def _read_head(path: Path) -> Rows:
    """Return the first rows of a Parquet file, or none if there is no file."""
    if not path.is_file():
        return []
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(_ROWS_PER_TABLE), None)
        return batch.to_pylist() if batch is not None else []


def _sample_by_label(version_dir: Path) -> Mapping[str, Rows]:
    """Return the rows of each label with the smallest keys. Keys are hashes: the sample is fair."""
    samples: dict[str, list[SampleRow]] = {label: [] for label in LABELS}
    for split in SPLITS:
        wanted = dict.fromkeys(LABELS, _ROWS_PER_TABLE)
        for row in _iterate_rows(version_dir / split):
            if wanted[row["label"]]:
                wanted[row["label"]] -= 1
                samples[row["label"]].append({**row, "split": split})
            if not any(wanted.values()):
                break
    return {
        label: sorted(rows, key=lambda row: row["key"])[:_ROWS_PER_TABLE]
        for label, rows in samples.items()
    }


def _iterate_rows(split_dir: Path) -> Iterator[SampleRow]:
    columns = ["key", "text", "label", "source", "row"]
    for path in sorted(split_dir.glob("*.parquet"))[:_FILES_PER_SPLIT]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()


def _changed_settings(config: JsonObject) -> JsonObject:
    """Return the settings that differ from their defaults, by dotted key."""

    def walk(value: JsonValue, default: JsonValue, key: str) -> Iterator[tuple[str, JsonValue]]:
        if is_json_object(value) and is_json_object(default):
            for name in value:
                yield from walk(value[name], default.get(name), f"{key}.{name}" if key else name)
        elif value != default:
            yield key, value

    return dict(walk(config, DataConfig().model_dump(mode="json"), ""))
