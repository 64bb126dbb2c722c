"""The steps of ingest, as functions of files: each is one task's work, and can be run again.

scan (a block of a source) -> settle (a partition of keys) -> compare (a partition of MinHash bands)
-> write (a partition of keys). What a step leaves for the next lies in `Plan.work`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import feather

from finsent.data.config import DataConfig
from finsent.data.ingest.exchange import Exchange, whole
from finsent.data.ingest.groups import Groups
from finsent.data.ingest.near import entries, find_edges
from finsent.data.ingest.settle import SourceTraits, described, excluded_rows, settle
from finsent.data.rows.clean import clean
from finsent.data.rows.split import SPLITS, split_of
from finsent.data.sources.source_file import SourceFile
from finsent.files import sha256_file
from finsent.labels import LABELS
from finsent.normalize import hex_words, key64

Stats = dict[str, Any]

_NEAR_ROWS = 20_000  # texts whose bands are in memory at once
_BANDS_A_PARTITION = 8  # bands take some ten times the room of their texts
_LONGEST = 512  # words; longer texts share the histogram's last place


@dataclass(frozen=True)
class Plan:
    """What every task of one ingest knows."""

    files: list[SourceFile]
    config: DataConfig
    out: Path  # the version's directory while it is made; on storage that every machine sees
    partitions: int

    @property
    def work(self) -> Path:
        """Where steps leave what only later steps read."""
        return self.out / ".work"

    @cached_property
    def traits(self) -> SourceTraits:
        """The files' traits, by position."""
        return SourceTraits.of(self.files)

    @property
    def by_key(self) -> Exchange:
        """Clean rows, brought together by text."""
        return Exchange(self.work / "rows", self.partitions)

    @property
    def by_band(self) -> Exchange:
        """MinHash bands of the distinct texts, brought together by band."""
        return Exchange(self.work / "bands", self.partitions * _BANDS_A_PARTITION)

    @property
    def edges(self) -> Path:
        """Verified near pairs, a file a partition of bands."""
        return self.work / "edges"

    def kept(self, partition: int) -> Path:
        """A partition's rows between `settle` and `write`."""
        return self.work / "kept" / f"{partition:05d}.arrow"


# --- scan ---------------------------------------------------------------------------------------


def scan(plan: Plan, rows: pa.Table) -> Stats:
    """Clean a block of one source's rows and store it by key; set unusable rows aside.

    Args:
        rows: schema `finsent.data.readers.formats.ROWS`, at least one.
    """
    index = rows["source"][0].as_py()
    file = plan.files[index]
    cleaned = clean(rows, file.settings, file.excluded, plan.config)
    name = f"{index:05d}-{rows['row'][0].as_py():012d}"
    if len(cleaned.good):
        plan.by_key.write(name, cleaned.good, key64(cleaned.good["key"]))
    if len(cleaned.rejected) and not file.excluded:  # a benchmark's rows were never to be kept
        names = pa.array(plan.traits.names, pa.string())
        rejected = cleaned.rejected.set_column(0, "source", names.take(cleaned.rejected["source"]))
        _write_side(plan, "rejected", name, rejected)
    return {
        "source": index,
        "rows": len(rows),
        "bytes": rows["raw_text"].nbytes + rows["raw_label"].nbytes,
        "rejected": reject_reasons(cleaned.rejected),
        "mojibake": cleaned.mojibake,
        "entities": cleaned.entities,
        "damaged": cleaned.damaged,
    }


def reject_reasons(rejected: pa.Table) -> dict[str, dict[str, Any]]:
    """Why rows of one source were rejected: by reason how many `rows`, and the `first` place."""
    found: dict[str, dict[str, Any]] = {}
    reasons = pc.replace_substring_regex(rejected["reason"], "(?s):.*", "").to_pylist()
    for reason, count in Counter(reasons).items():
        row = rejected.slice(reasons.index(reason), 1).to_pylist()[0]
        first = f"record {row['row']}"
        detail = row["reason"].partition(": ")[2]
        if reason == "unknown_label":
            first += f", {row['raw_label'][:40]!r}"
        elif detail:
            first += f", {detail!r}" if reason == "unknown_time" else f", {detail}"
        found[reason] = {"rows": count, "first": first, "row": row["row"]}
    return found


def _write_side(plan: Plan, table: str, name: str, rows: pa.Table) -> None:
    if len(rows):
        with whole(plan.work / table / f"{name}.parquet") as path:
            pq.write_table(rows, path, compression="zstd")


# --- settle and compare -------------------------------------------------------------------------


def settle_partition(plan: Plan, partition: int) -> Stats:
    """Settle the rows of a partition, and take the bands of its texts where near ones matter.

    Without near-duplicates the splits are written at once.
    """
    rows = plan.by_key.read(partition)
    if rows is None or not len(rows):
        return {"partition": partition, "empty": True}
    settled = settle(rows, plan.traits, plan.config)
    del rows
    name = f"{partition:05d}"
    _write_side(plan, "conflicts", name, settled.conflicts)
    _write_side(plan, "excluded", f"{name}-same", settled.excluded)
    stats: Stats = {
        "partition": partition,
        "fates": {fate: counts.tolist() for fate, counts in settled.fates.items()},
        "decisions": dict(settled.decisions),
        "best_votes": settled.best_votes,
        "kept_best_votes": settled.kept_best_votes,
        "conflict": _first_conflict(settled.conflicts),
    }
    if not plan.config.near_duplicates.enabled:
        return {**stats, **_write_splits(plan, partition, settled.kept, None)}
    for start in range(0, len(settled.texts), _NEAR_ROWS):
        bands = entries(settled.texts.slice(start, _NEAR_ROWS), plan.config.near_duplicates)
        if len(bands):
            plan.by_band.write(f"{name}-{start:09d}", bands, bands["band"].to_numpy())
    with whole(plan.kept(partition)) as path:
        feather.write_feather(settled.kept, str(path), compression="lz4")
    return stats


def _first_conflict(conflicts: pa.Table) -> list[Any]:
    """Source and record of the first row in conflict; where it is and one of another label."""
    if not len(conflicts):
        return []
    rows = conflicts.sort_by([("source", "ascending"), ("row", "ascending")])
    one = rows.slice(0, 1).to_pylist()[0]
    other = rows.filter(
        pc.and_(pc.equal(rows["key"], one["key"]), pc.not_equal(rows["label"], one["label"]))
    ).slice(0, 1)
    places = [f"{r['source']} record {r['row']} ({r['label']})" for r in [one, *other.to_pylist()]]
    return [one["source"], one["row"], " and ".join(places)]


def compare_partition(plan: Plan, partition: int) -> Stats:
    """Store the verified near pairs among the texts that share a band of this partition."""
    bands = plan.by_band.read(partition)
    if bands is None or not len(bands):
        return {"partition": partition, "edges": 0}
    edges = find_edges(bands, plan.config.near_duplicates)
    with whole(plan.edges / f"{partition:05d}.arrow") as path:
        feather.write_feather(edges, str(path), compression="lz4")
    return {"partition": partition, "edges": len(edges)}


def read_edges(plan: Plan) -> Iterator[pa.Table]:
    """The stored pairs, part by part; ids only."""
    for path in sorted(plan.edges.glob("[!.]*.arrow")):
        yield feather.read_table(str(path), memory_map=False)


# --- write --------------------------------------------------------------------------------------


def write_partition(plan: Plan, partition: int, groups: Groups) -> Stats:
    """Write the splits of a settled partition, once the groups of near texts are known."""
    if not plan.kept(partition).is_file():
        return {"partition": partition, "empty": True}
    kept = feather.read_table(str(plan.kept(partition)), memory_map=False)
    return {"partition": partition, **_write_splits(plan, partition, kept, groups)}


def _write_splits(plan: Plan, partition: int, kept: pa.Table, groups: Groups | None) -> Stats:
    keys = key64(kept["key"])
    roots = keys
    removed: dict[str, list[int]] = {}
    if groups is not None:
        for reason, gone, by in (
            ("near_excluded", groups.near_excluded, groups.near_excluded_by),
            ("near_two_splits", groups.crossing, groups.crossing_by),
        ):
            which = _within(keys, gone)
            match = by[np.searchsorted(gone, keys[which])]
            rows = excluded_rows(kept, which, reason, match, plan.traits)
            _write_side(plan, "excluded", f"{partition:05d}-{reason}", rows)
            removed[reason] = np.bincount(
                kept["source"].to_numpy()[which], minlength=len(plan.files)
            ).tolist()
            kept, keys = kept.filter(pa.array(~which)), keys[~which]
        roots = groups.roots_of(keys)
    own = plan.config.split.group_by is None and plan.config.split.time.column is None
    units = roots if own else kept["unit"].to_numpy()
    split = split_of(units, plan.config.salt, plan.config.split)
    table = _published(kept, roots, plan.traits)
    files = {
        name: _write_split(plan.out, name, partition, table.filter(pa.array(split == position)))
        for position, name in enumerate(SPLITS)
    }
    return {
        "removed": removed,
        "files": {name: entry for name, entry in files.items() if entry is not None},
        "labels": _label_counts(kept, split, len(plan.files)),
        "lengths": _lengths(kept["text"]),
        "near": _near(keys, roots, kept["label"].to_numpy(), groups),
    }


def _within(keys: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which keys are among the sorted wanted ones."""
    if not len(wanted):
        return np.zeros(len(keys), bool)
    places = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    return np.asarray(wanted[places] == keys)


def _published(kept: pa.Table, roots: npt.NDArray[np.uint64], traits: SourceTraits) -> pa.Table:
    shown = described(kept, kept["label"].to_numpy().astype(np.int64), traits)
    return pa.table(
        {
            "key": shown["key"],
            "group": hex_words(roots),
            "text": kept["text"],
            "label": shown["label"],
            "source": shown["source"],
            "row": kept["row"],
            "raw_text": pc.coalesce(kept["raw_text"], kept["text"]),
            "unit": kept["unit_text"],
            "agreement": kept["agreement"],
            "weight": kept["weight"],
        }
    )


def _write_split(out: Path, split: str, partition: int, rows: pa.Table) -> dict[str, Any] | None:
    if not len(rows) and partition:  # an empty split still has a schema
        return None
    path = out / split / f"part-{partition:05d}.parquet"
    with whole(path) as temporary:
        # Texts and keys hardly repeat: a dictionary of them costs time and saves nothing.
        pq.write_table(
            rows,
            temporary,
            compression="zstd",
            row_group_size=65_536,
            use_dictionary=["label", "source"],
        )
    return {"path": f"{split}/{path.name}", "rows": len(rows), "sha256": sha256_file(path)}


def _label_counts(
    kept: pa.Table, split: npt.NDArray[np.int8], sources: int
) -> dict[str, list[list[int]]]:
    """Rows by split, source and label."""
    shape = (len(SPLITS), sources, len(LABELS))
    places = np.ravel_multi_index(
        (split, kept["source"].to_numpy(), kept["label"].to_numpy()), shape
    )
    counts = np.bincount(places, minlength=int(np.prod(shape))).reshape(shape)
    return {name: counts[position].tolist() for position, name in enumerate(SPLITS)}


def _lengths(texts: pa.ChunkedArray) -> list[int]:
    """Texts by their number of words."""
    words = pc.add(pc.count_substring(texts, " "), 1).to_numpy()
    counts: list[int] = np.bincount(np.minimum(words, _LONGEST), minlength=_LONGEST + 1).tolist()
    return counts


def _near(
    keys: npt.NDArray[np.uint64],
    roots: npt.NDArray[np.uint64],
    labels: npt.NDArray[np.int8],
    groups: Groups | None,
) -> list[tuple[int, int, int]]:
    """The rows that may have near ones, as (root, label, rows): ids and counts only."""
    if groups is None:
        return []
    which = (roots != keys) | _within(keys, groups.roots)
    counted = Counter(zip(roots[which].tolist(), labels[which].tolist(), strict=True))
    return [(root, label, count) for (root, label), count in counted.items()]
