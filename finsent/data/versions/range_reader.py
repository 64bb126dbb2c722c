"""Read the rows of a dataset version by ranges of keys, as narrow arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finsent.data.rows.split import SPLITS
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.diff_records import ExampleRow
from finsent.errors import InputError
from finsent.labels import LABELS

_ROWS_PER_RANGE = 1_000_000  # of the larger version
_EXAMPLE_COLUMNS = ("key", "text", "row")
_HEX_DIGITS = np.zeros(256, np.uint8)
_HEX_DIGITS[[*b"0123456789abcdef"]] = np.arange(16)

Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]


class StoredRow(TypedDict):
    """The columns of a row that an example shows."""

    key: str
    text: str
    row: int
    label: str


StoredRows = dict[tuple[int, int], StoredRow]  # by key prefix and label


@dataclass(frozen=True)
class RowOrigin:
    """Label, split and source of a row, as positions in `LABELS`, `SPLITS` and the source names."""

    label: int
    split: int
    source: int


@dataclass(frozen=True)
class RowBlock:
    """Rows of one version in a range of keys, in the order of key and label."""

    key: Keys
    label: npt.NDArray[np.int8]  # positions in LABELS
    split: npt.NDArray[np.int8]  # positions in SPLITS
    source: Codes  # positions in RangeReader.source_codes

    def take(self, indices: Ints) -> RowBlock:
        """Return the rows at some indices."""
        return RowBlock(
            self.key[indices], self.label[indices], self.split[indices], self.source[indices]
        )

    def without(self, indices: Ints) -> RowBlock:
        """Return the rows at all other indices."""
        return self.take(np.setdiff1d(np.arange(len(self.key)), indices, assume_unique=True))

    def origin(self, index: int) -> RowOrigin:
        """Return label, split and source of a row."""
        return RowOrigin(int(self.label[index]), int(self.split[index]), int(self.source[index]))


@dataclass(frozen=True)
class _RowGroup:
    """A row group of a split's file, and the range of its keys."""

    file: Path
    index: int
    split: int
    first: int
    last: int

    def read(self, columns: list[str]) -> pa.Table:
        with pq.ParquetFile(self.file, read_dictionary=["label", "source"]) as parquet:
            return parquet.read_row_group(self.index, columns=columns, use_threads=False)


@dataclass(frozen=True)
class RangeReader:
    """Reads a version by ranges of keys."""

    version: DatasetVersion
    source_codes: dict[str, int] = field(default_factory=dict)  # grows while rows are read

    @cached_property
    def row_count(self) -> int:
        """The number of rows of all splits."""
        return sum(self.version.rows(split) for split in SPLITS)

    @cached_property
    def groups(self) -> list[_RowGroup]:
        """The row groups of all splits."""
        return [
            group
            for position, split in enumerate(SPLITS)
            for file in self.version.files(split)
            for group in _row_groups(file, position)
        ]

    def read_range(self, first: int, last: int) -> RowBlock:
        """Return the rows whose keys are from `first` to `last`, both included."""
        parts = [
            self._read_part(group, first, last)
            for group in self.groups
            if group.first <= last and first <= group.last
        ]
        key = np.concatenate([np.zeros(0, np.uint64), *(block.key for block in parts)])
        label = np.concatenate([np.zeros(0, np.int8), *(block.label for block in parts)])
        split = np.concatenate([np.zeros(0, np.int8), *(block.split for block in parts)])
        source = np.concatenate([np.zeros(0, np.int32), *(block.source for block in parts)])
        return RowBlock(key, label, split, source).take(np.lexsort((split, label, key)))

    def _read_part(self, group: _RowGroup, first: int, last: int) -> RowBlock:
        table = group.read(["key", "label", "source"])
        key = _key_prefixes(table["key"])
        in_range = (key >= np.uint64(first)) & (key <= np.uint64(last))
        label_codes = {name: position for position, name in enumerate(LABELS)}
        return RowBlock(
            key[in_range],
            _encode(table["label"], label_codes)[in_range].astype(np.int8),
            np.full(int(in_range.sum()), group.split, np.int8),
            _encode(table["source"], self.source_codes)[in_range],
        )

    def read_rows(self, wanted: set[tuple[int, int]]) -> StoredRows:
        """Read `_EXAMPLE_COLUMNS` of rows, by the prefix of their key and their label."""
        keys = np.array(sorted({key for key, _ in wanted}), np.uint64)
        rows: StoredRows = {}
        for group in self.groups:
            if not _has_key_in_range(keys, group.first, group.last):
                continue
            table = group.read([*_EXAMPLE_COLUMNS, "label"])
            table = table.filter(pa.array(np.isin(_key_prefixes(table["key"]), keys)))
            for row in table.to_pylist():
                rows[int(row["key"][:16], 16), LABELS.index(row["label"])] = row
        return rows

    def example_row(
        self, key: int, origin: RowOrigin | None, rows: StoredRows
    ) -> ExampleRow | None:
        """Compose a row of an example from its origin and its stored columns."""
        if origin is None:
            return None
        stored = rows[key, origin.label]
        return ExampleRow(
            key=stored["key"],
            text=stored["text"],
            row=stored["row"],
            label=LABELS[origin.label],
            split=SPLITS[origin.split],
            source=[*self.source_codes][origin.source],
        )


def _row_groups(file: Path, split: int) -> Iterator[_RowGroup]:
    try:
        parquet = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file}: cannot be read ({error}). Ingest again.") from None
    with parquet:
        names, metadata = parquet.schema_arrow.names, parquet.metadata
    missing = {*_EXAMPLE_COLUMNS, "label", "source"} - {*names}
    if missing:
        raise InputError(f"{file}: has no column {min(missing)!r}. Ingest again.")
    for index in range(metadata.num_row_groups):
        keys = metadata.row_group(index).column(names.index("key")).statistics
        first, last = 0, 2**64 - 1
        if keys is not None and keys.has_min_max:
            first, last = int(keys.min[:16], 16), int(keys.max[:16], 16)
        yield _RowGroup(file, index, split, first, last)


def _has_key_in_range(sorted_keys: Keys, first: int, last: int) -> bool:
    position = np.searchsorted(sorted_keys, np.uint64(first))
    return bool(position < len(sorted_keys) and sorted_keys[position] <= np.uint64(last))


def _key_prefixes(keys: pa.ChunkedArray) -> Keys:
    """Return the first 64 bits of keys in hex."""
    fixed = pc.utf8_slice_codeunits(keys, 0, 16).cast(pa.binary()).cast(pa.binary(16))
    digits = [np.zeros(0, np.uint8)]
    for chunk in fixed.chunks:
        if len(chunk):
            characters = np.frombuffer(chunk.buffers()[1], np.uint8)
            digits.append(characters[16 * chunk.offset : 16 * (chunk.offset + len(chunk))])
    nibbles = _HEX_DIGITS[np.concatenate(digits)].reshape(-1, 2)
    return (nibbles[:, 0] << 4 | nibbles[:, 1]).view(">u8").astype(np.uint64)


def _encode(column: pa.ChunkedArray, codes: dict[str, int]) -> Codes:
    """Return the codes of a dictionary column's values. New values are added to `codes`."""
    parts = [np.zeros(0, np.int32)]
    for chunk in column.chunks:
        chunk_codes = [codes.setdefault(name, len(codes)) for name in chunk.dictionary.to_pylist()]
        parts.append(np.array(chunk_codes, np.int32)[chunk.indices.to_numpy()])
    return np.concatenate(parts)


def key_ranges(rows: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of keys, in order, with about `_ROWS_PER_RANGE` rows each: keys are hashes."""
    count = 1 + rows // _ROWS_PER_RANGE
    for index in range(count):
        yield index * 2**64 // count, (index + 1) * 2**64 // count - 1
