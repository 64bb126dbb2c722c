"""The steps of ingest as functions of files. Each call is one task, which Ray may run again.

scan (a block of a source) -> settle (a partition of keys) -> compare (a partition of MinHash bands)
-> write (a partition of keys). A step stores what the next step reads in `Plan.work_dir`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import feather

from finsent.data.config import DataConfig
from finsent.data.ingest.exchange import Exchange, atomic_file
from finsent.data.ingest.groups import Groups
from finsent.data.ingest.near import entries, find_edges
from finsent.data.ingest.rejections import count_rejected
from finsent.data.ingest.settle import SourceTraits, described, excluded_rows, settle
from finsent.data.ingest.task_results import (
    CompareResult,
    FirstConflict,
    ScanResult,
    SettleResult,
    WriteResult,
)
from finsent.data.rows.clean import clean
from finsent.data.rows.split import SPLITS, split_of
from finsent.data.sources.source_file import SourceFile
from finsent.data.versions.manifest import SplitFile
from finsent.files import sha256_file
from finsent.labels import LABELS
from finsent.normalize import hex_words, key64

_TEXTS_PER_ENTRIES_CALL = 20_000  # bounds the bands in memory
_BAND_PARTITIONS_PER_PARTITION = 8  # bands take some ten times the bytes of their texts
_MAX_LENGTH = 512  # words; longer texts share the last bin of the histogram

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Plan:
    """Inputs, settings and paths that all tasks of one ingest share."""

    files: list[SourceFile]
    config: DataConfig
    out: Path  # staging directory of the version, on storage that every machine sees
    partitions: int

    @property
    def work_dir(self) -> Path:
        """Directory of the files that only later steps read."""
        return self.out / ".work"

    @cached_property
    def traits(self) -> SourceTraits:
        """The traits of the source files, by position."""
        return SourceTraits.of(self.files)

    @property
    def by_key(self) -> Exchange:
        """Clean rows, partitioned by text."""
        return Exchange(self.work_dir / "rows", self.partitions)

    @property
    def by_band(self) -> Exchange:
        """MinHash bands of the distinct texts, partitioned by band."""
        return Exchange(self.work_dir / "bands", self.partitions * _BAND_PARTITIONS_PER_PARTITION)

    @property
    def edges_dir(self) -> Path:
        """Directory of the verified near pairs: one file per partition of bands."""
        return self.work_dir / "edges"

    def kept_file(self, partition: int) -> Path:
        """Return the file that holds the rows of a partition between `settle` and `write`."""
        return self.work_dir / "kept" / f"{partition:05d}.arrow"

    @property
    def splits_by_text(self) -> bool:
        """Whether the text decides the split, and not a column of the source."""
        return self.config.split.group_by is None and self.config.split.time.column is None


# --- scan ---------------------------------------------------------------------------------------


def scan(plan: Plan, rows: pa.Table) -> ScanResult:
    """Clean a block of one source, store its rows by key, and set rejected rows aside.

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
        _write_side_part(plan, "rejected", name, rejected)
    return ScanResult(
        source=index,
        rows=len(rows),
        bytes=rows["raw_text"].nbytes + rows["raw_label"].nbytes,
        rejected=count_rejected(cleaned.rejected),
        mojibake=cleaned.mojibake,
        entities=cleaned.entities,
        damaged=cleaned.damaged,
    )


def _write_side_part(plan: Plan, table: str, name: str, rows: pa.Table) -> None:
    if len(rows):
        with atomic_file(plan.work_dir / table / f"{name}.parquet") as path:
            pq.write_table(rows, path, compression="zstd")


# --- settle and compare -------------------------------------------------------------------------


def settle_partition(plan: Plan, partition: int) -> SettleResult | None:
    """Settle the rows of a partition, then store the MinHash bands of its texts.

    Without near-duplicates, write the splits at once.

    Returns:
        None if the partition has no rows.
    """
    rows = plan.by_key.read(partition)
    if rows is None or not len(rows):
        return None
    settled = settle(rows, plan.traits, plan.config)
    del rows
    name = f"{partition:05d}"
    _write_side_part(plan, "conflicts", name, settled.conflicts)
    _write_side_part(plan, "excluded", f"{name}-same", settled.excluded)
    written = None
    if plan.config.near_duplicates.enabled:
        _store_bands(plan, name, settled.texts)
        with atomic_file(plan.kept_file(partition)) as path:
            feather.write_feather(settled.kept, str(path), compression="lz4")
    else:
        written = _write_splits(plan, partition, settled.kept, None)
    return SettleResult(
        fates={fate: counts.tolist() for fate, counts in settled.fates.items()},
        decisions=dict(settled.decisions),
        best_votes=settled.best_votes,
        kept_best_votes=settled.kept_best_votes,
        first_conflict=_first_conflict(settled.conflicts),
        written=written,
    )


def _store_bands(plan: Plan, name: str, texts: pa.Table) -> None:
    for start in range(0, len(texts), _TEXTS_PER_ENTRIES_CALL):
        bands = entries(texts.slice(start, _TEXTS_PER_ENTRIES_CALL), plan.config.near_duplicates)
        if len(bands):
            plan.by_band.write(f"{name}-{start:09d}", bands, bands["band"].to_numpy())


def _first_conflict(conflicts: pa.Table) -> FirstConflict | None:
    """Describe the first row in conflict, and a row of the same text with another label."""
    if not len(conflicts):
        return None
    rows = conflicts.sort_by([("source", "ascending"), ("row", "ascending")])
    first_row = rows.slice(0, 1).to_pylist()[0]
    same_text = pc.equal(rows["key"], first_row["key"])
    other_label = pc.not_equal(rows["label"], first_row["label"])
    contradicting = rows.filter(pc.and_(same_text, other_label)).slice(0, 1).to_pylist()
    descriptions = [
        f"{row['source']} record {row['row']} ({row['label']})"
        for row in [first_row, *contradicting]
    ]
    return FirstConflict(
        source=first_row["source"], row=first_row["row"], description=" and ".join(descriptions)
    )


def compare_partition(plan: Plan, partition: int) -> CompareResult | None:
    """Store the verified near pairs among the texts that share a band of this partition.

    Returns:
        None if the partition has no bands.
    """
    bands = plan.by_band.read(partition)
    if bands is None or not len(bands):
        return None
    edges = find_edges(bands, plan.config.near_duplicates)
    with atomic_file(plan.edges_dir / f"{partition:05d}.arrow") as path:
        feather.write_feather(edges, str(path), compression="lz4")
    return CompareResult(edges=len(edges))


def read_edges(plan: Plan) -> Iterator[pa.Table]:
    """Yield the stored near pairs, file by file. The tables hold ids only."""
    for path in sorted(plan.edges_dir.glob("[!.]*.arrow")):
        yield feather.read_table(str(path), memory_map=False)


# --- write --------------------------------------------------------------------------------------


def write_partition(plan: Plan, partition: int, groups: Groups) -> WriteResult | None:
    """Write the splits of a settled partition, once the groups of near texts are known.

    Returns:
        None if the partition has no rows.
    """
    path = plan.kept_file(partition)
    if not path.is_file():
        return None
    kept_rows = feather.read_table(str(path), memory_map=False)
    return _write_splits(plan, partition, kept_rows, groups)


def _write_splits(
    plan: Plan, partition: int, kept_rows: pa.Table, groups: Groups | None
) -> WriteResult:
    removed: dict[str, list[int]] = {}
    if groups is None:
        keys = roots = key64(kept_rows["key"])
    else:
        kept_rows, removed = _remove_near(plan, partition, kept_rows, groups)
        keys = key64(kept_rows["key"])
        roots = groups.roots_of(keys)
    units = roots if plan.splits_by_text else kept_rows["unit"].to_numpy()
    split = split_of(units, plan.config.salt, plan.config.split)
    table = _published_columns(kept_rows, roots, plan.traits)
    files = {
        name: _write_split_part(
            plan.out, name, partition, table.filter(pa.array(split == position))
        )
        for position, name in enumerate(SPLITS)
    }
    return WriteResult(
        removed=removed,
        files={name: file for name, file in files.items() if file is not None},
        labels=_count_labels(kept_rows, split, len(plan.files)),
        lengths=_count_lengths(kept_rows["text"]),
        near=_count_near(keys, roots, kept_rows["label"].to_numpy(), groups),
    )


def _remove_near(
    plan: Plan, partition: int, kept_rows: pa.Table, groups: Groups
) -> tuple[pa.Table, dict[str, list[int]]]:
    """Remove rows near a text that must stay unseen or near an older text of another split.

    Returns:
        The other rows, and the number of removed rows by reason and source.
    """
    keys = key64(kept_rows["key"])
    removed: dict[str, list[int]] = {}
    for reason, removed_keys, matched_orders in (
        ("near_excluded", groups.near_excluded, groups.near_excluded_by),
        ("near_two_splits", groups.crossing, groups.crossing_by),
    ):
        is_removed = _is_in_sorted(keys, removed_keys)
        matches = matched_orders[np.searchsorted(removed_keys, keys[is_removed])]
        rows = excluded_rows(kept_rows, is_removed, reason, matches, plan.traits)
        _write_side_part(plan, "excluded", f"{partition:05d}-{reason}", rows)
        sources = kept_rows["source"].to_numpy()[is_removed]
        removed[reason] = np.bincount(sources, minlength=len(plan.files)).tolist()
        kept_rows, keys = kept_rows.filter(pa.array(~is_removed)), keys[~is_removed]
    return kept_rows, removed


def _is_in_sorted(keys: Words, sorted_keys: Words) -> npt.NDArray[np.bool_]:
    """Return for each key whether it is among the sorted ones."""
    if not len(sorted_keys):
        return np.zeros(len(keys), bool)
    positions = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.asarray(sorted_keys[positions] == keys)


def _published_columns(kept_rows: pa.Table, roots: Words, traits: SourceTraits) -> pa.Table:
    columns = described(kept_rows, kept_rows["label"].to_numpy().astype(np.int64), traits)
    return pa.table(
        {
            "key": columns["key"],
            "group": hex_words(roots),
            "text": kept_rows["text"],
            "label": columns["label"],
            "source": columns["source"],
            "row": kept_rows["row"],
            "raw_text": pc.coalesce(kept_rows["raw_text"], kept_rows["text"]),
            "unit": kept_rows["unit_text"],
            "agreement": kept_rows["agreement"],
            "weight": kept_rows["weight"],
        }
    )


def _write_split_part(out: Path, split: str, partition: int, rows: pa.Table) -> SplitFile | None:
    if not len(rows) and partition:  # the first partition gives an empty split its schema
        return None
    path = out / split / f"part-{partition:05d}.parquet"
    with atomic_file(path) as temporary:
        # Texts and keys hardly repeat: a dictionary of them costs time and saves nothing.
        pq.write_table(
            rows,
            temporary,
            compression="zstd",
            row_group_size=65_536,
            use_dictionary=["label", "source"],
        )
    return SplitFile(path=f"{split}/{path.name}", rows=len(rows), sha256=sha256_file(path))


def _count_labels(
    kept_rows: pa.Table, split: npt.NDArray[np.int8], sources: int
) -> dict[str, list[list[int]]]:
    """Count rows by split, source and label."""
    shape = (len(SPLITS), sources, len(LABELS))
    cells = np.ravel_multi_index(
        (split, kept_rows["source"].to_numpy(), kept_rows["label"].to_numpy()), shape
    )
    counts = np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)
    return {name: counts[position].tolist() for position, name in enumerate(SPLITS)}


def _count_lengths(texts: pa.ChunkedArray) -> list[int]:
    """Count texts by their number of words."""
    words = pc.add(pc.count_substring(texts, " "), 1).to_numpy()
    counts = np.bincount(np.minimum(words, _MAX_LENGTH), minlength=_MAX_LENGTH + 1)
    return [int(count) for count in counts]


def _count_near(
    keys: Words, roots: Words, labels: npt.NDArray[np.int8], groups: Groups | None
) -> list[tuple[int, int, int]]:
    """Count the rows of near-duplicate groups, as (root, label, rows)."""
    if groups is None:
        return []
    in_group = (roots != keys) | _is_in_sorted(keys, groups.roots)
    counts = Counter(zip(roots[in_group].tolist(), labels[in_group].tolist(), strict=True))
    return [(root, label, rows) for (root, label), rows in counts.items()]
