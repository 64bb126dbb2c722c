"""Ingest: from labelled files to a published dataset version, with Ray Data.

One streaming pass reads, cleans and keys the rows; one shuffle brings equal texts into the same
partition; each partition is settled and written where it is. Only counts reach the driver.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finsent.data.clean import clean
from finsent.data.config import DataConfig
from finsent.data.dataset import MANIFEST, SCHEMA_VERSION, DatasetVersion
from finsent.data.settle import SPLITS, count_labels, settle
from finsent.data.sources import ROWS, SourceFile, read_rows
from finsent.errors import InputError
from finsent.files import digest, sha256_file, staged_dir, write_json
from finsent.labels import LABELS

log = logging.getLogger(__name__)

_BYTES_PER_PARTITION = 64 << 20
_SIDE_TABLES = ("rejected", "conflicts")

Reasons = dict[str, dict[str, dict[str, Any]]]  # source -> reason -> {"rows", "first"}


def version_id(files: list[SourceFile], config: DataConfig) -> str:
    """The id of the version that these inputs give: a digest of bytes, names and settings."""
    settings = config.model_dump(mode="json", exclude={"sources", "name"})
    inputs = [[file.name, file.sha256] for file in files]
    return digest({"schema": SCHEMA_VERSION, "settings": settings, "inputs": inputs})[:12]


def ingest(config: DataConfig, datasets_dir: Path, files: list[SourceFile]) -> DatasetVersion:
    """Make, or find, the dataset version of these files. Needs a running Ray when it is new.

    Raises:
        InputError: too many rows are rejected, or too few are left.
    """
    version = version_id(files, config)
    final = datasets_dir / version
    existing = find_existing(config, datasets_dir, files)
    if existing is not None:
        log.info("dataset version %s exists: reused", version)
        return existing
    if final.exists():
        raise InputError(f"{str(final)!r}: is incomplete (no {MANIFEST}); delete it and run again")
    with staged_dir(final) as staging:
        stats = _run(config, files, staging)
        manifest = _manifest(config, files, version, stats)
        _check_enough(manifest, config)
        for name in _SIDE_TABLES:
            _merge(staging / name, staging / f"{name}.parquet")
        write_json(staging / MANIFEST, manifest)
    return DatasetVersion.open(final, verify=False)


def find_existing(
    config: DataConfig, datasets_dir: Path, files: list[SourceFile]
) -> DatasetVersion | None:
    """The published version of these files and settings, if there is one. Needs no Ray."""
    version = DatasetVersion.at(datasets_dir / version_id(files, config))
    if version is not None:
        (version.path / MANIFEST).touch()  # `latest` is the one that was asked for last
    return version


def _run(config: DataConfig, files: list[SourceFile], out: Path) -> list[dict[str, Any]]:
    import ray.data  # here, so that readers of datasets need no Ray

    partitions = 1 + sum(file.bytes for file in files) // _BYTES_PER_PARTITION
    names = [file.name for file in files]

    def read(item: pa.Table) -> Iterator[pa.Table]:
        for index, path in zip(item["index"].to_pylist(), item["path"].to_pylist(), strict=True):
            # An empty table first: a file without rows still has columns to shuffle by.
            for rows in itertools.chain([ROWS.empty_table()], read_rows(path, index, config)):
                cleaned = clean(rows, config)
                yield cleaned.append_column("partition", _partition(cleaned["key"], partitions))

    def write(rows: pa.Table) -> pa.Table:
        stats = write_partition(rows.drop_columns("partition"), rows["partition"][0].as_py(),
                                names, config, out)  # fmt: skip
        return pa.table({"stats": [json.dumps(stats)]})

    items = [{"index": index, "path": file.path} for index, file in enumerate(files)]
    dataset = (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map_batches(read, batch_size=1, batch_format="pyarrow")
        .groupby("partition", num_partitions=partitions)
        .map_groups(write, batch_format="pyarrow")
    )
    return [json.loads(row["stats"]) for row in dataset.take_all()]


def _partition(keys: pa.ChunkedArray, partitions: int) -> pa.Array:
    return pa.array([int(key[:12], 16) % partitions for key in keys.to_pylist()], pa.int32())


def write_partition(
    rows: pa.Table, index: int, names: list[str], config: DataConfig, out: Path
) -> dict[str, Any]:
    """Settle one partition and write its Parquet files under `out`.

    The names depend on the partition alone, so a task that Ray runs again overwrites its files.

    Returns:
        Counts and written files, without any text but one example of each fault.
    """
    settled = settle(rows, names, config)
    tables = {**settled.splits, "rejected": settled.rejected, "conflicts": settled.conflicts}
    files: dict[str, Any] = {}
    for name, table in tables.items():
        path = out / name / f"part-{index:05d}.parquet"
        path.parent.mkdir(exist_ok=True)
        if len(table) or index == 0:  # an empty split still has a schema
            pq.write_table(table, path, compression="zstd")
            files[name] = {
                "path": f"{name}/{path.name}", "rows": len(table), "sha256": sha256_file(path)
            }  # fmt: skip
    return {
        "rows": len(rows),
        "rows_by_source": _counts(pa.array(names, pa.string()).take(rows["source"])),
        "rejected": reject_reasons(settled.rejected),
        "duplicates": settled.duplicates,
        "conflicts": settled.conflict_rows,
        "conflict_example": settled.conflicts["text"][0].as_py() if len(settled.conflicts) else "",
        "labels": {name: count_labels(table) for name, table in settled.splits.items()},
        "files": files,
    }


def _counts(values: pa.ChunkedArray | pa.Array) -> dict[str, int]:
    return {v["values"]: v["counts"] for v in pc.value_counts(values).to_pylist()}


def reject_reasons(rejected: pa.Table) -> Reasons:
    """By source and reason: how many, and the first place."""
    found: Reasons = {}
    for row in rejected.select(["reason", "source", "row", "raw_label"]).to_pylist():
        reason = row["reason"].split(":")[0]
        first = f"record {row['row']}"
        if reason == "unknown_label":
            first += f", {row['raw_label'][:40]!r}"
        entry = found.setdefault(row["source"], {}).setdefault(reason, {"rows": 0, "first": first})
        entry["rows"] += 1
    return found


def _add_reasons(parts: list[Reasons], source: str) -> dict[str, dict[str, Any]]:
    total: dict[str, dict[str, Any]] = {}
    for part in parts:
        for reason, entry in part.get(source, {}).items():
            seen = total.setdefault(reason, {"rows": 0, "first": entry["first"]})
            seen["rows"] += entry["rows"]
    return total


def _manifest(
    config: DataConfig, files: list[SourceFile], version: str, stats: list[dict[str, Any]]
) -> dict[str, Any]:
    reasons = {
        file.name: _add_reasons([part["rejected"] for part in stats], file.name) for file in files
    }
    rejected = {name: sum(e["rows"] for e in found.values()) for name, found in reasons.items()}
    splits: dict[str, dict[str, Any]] = {
        name: {
            "rows": sum(p["files"][name]["rows"] for p in stats if name in p["files"]),
            "labels": {label: sum(p["labels"][name][label] for p in stats) for label in LABELS},
            "files": sorted(
                (p["files"][name] for p in stats if name in p["files"]), key=lambda f: f["path"]
            ),
        }
        for name in SPLITS
    }
    counts = {
        "rows_in": sum(part["rows"] for part in stats),
        "kept": sum(split["rows"] for split in splits.values()),
        "rejected": sum(rejected.values()),
        "duplicates": sum(part["duplicates"] for part in stats),
        "conflicts": sum(part["conflicts"] for part in stats),
    }
    fates = counts["kept"] + counts["rejected"] + counts["duplicates"] + counts["conflicts"]
    if counts["rows_in"] != fates:
        raise RuntimeError(f"rows were lost: {counts} do not add up")
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "labels": list(LABELS),
        "inputs": [
            {
                "source": file.name,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "rows": sum(part["rows_by_source"].get(file.name, 0) for part in stats),
                "rejected": rejected[file.name],
                "rejected_reasons": reasons[file.name],
            }
            for file in files
        ],
        "counts": counts,
        "conflict_example": next((p["conflict_example"] for p in stats if p["conflicts"]), ""),
        "splits": splits,
        "config": config.model_dump(mode="json"),
    }


def _check_enough(manifest: dict[str, Any], config: DataConfig) -> None:
    for source in manifest["inputs"]:
        if not source["rows"]:
            raise InputError(
                f"data.sources: {source['source']!r} has a header and no rows; add labelled rows"
            )
        check_rejected(source["source"], source["rows"], source["rejected_reasons"], config)
    if config.conflicts == "error" and manifest["counts"]["conflicts"]:
        raise InputError(
            f"data.conflicts='error': {manifest['counts']['conflicts']} rows are texts under "
            f"several labels, e.g. {manifest['conflict_example'][:80]!r}; mend the labels, or set "
            "data.conflicts=drop or majority"
        )
    for name, split in manifest["splits"].items():
        if not split["rows"]:
            raise InputError(
                f"data.split.{name}={getattr(config.split, name)}: the split is empty, as only "
                f"{manifest['counts']['kept']} distinct rows are left; add rows or raise the share"
            )


def check_rejected(
    source: str, rows: int, reasons: dict[str, dict[str, Any]], config: DataConfig
) -> None:
    """Fail when a source loses too many rows.

    Args:
        rows: all rows of the source.
        reasons: by reason, how many were rejected (`rows`) and the `first` place.

    Raises:
        InputError: the source is above `data.max_rejected_fraction`.
    """
    rejected = sum(entry["rows"] for entry in reasons.values())
    if rejected > config.max_rejected_fraction * rows:
        ranked = sorted(reasons.items(), key=lambda item: -item[1]["rows"])
        listed = "; ".join(f"{r}: {e['rows']} (first: {e['first']})" for r, e in ranked[:3])
        raise InputError(
            f"data.sources: {source!r}: {rejected} of {rows} rows are unusable, above "
            f"data.max_rejected_fraction={config.max_rejected_fraction}: {listed}; "
            f"mend them (labels are {', '.join(LABELS)}) or raise the limit"
        )


def _merge(parts: Path, target: Path) -> None:
    """Join the parts of a small side table into one file, one part in memory at a time."""
    files = sorted(parts.glob("*.parquet"))
    with pq.ParquetWriter(target, pq.read_schema(files[0]), compression="zstd") as writer:
        for file in files:
            writer.write_table(pq.read_table(file, partitioning=None))
    shutil.rmtree(parts)
