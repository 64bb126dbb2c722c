"""Invented financial sentences in any number, for benchmarks and for tests that count rows.

A row is a function of the seed and the row's number (counter-based hashing by SplitMix64, Steele et
al. 2014), so any part of the rows can be made without the others. Of 1,000 rows:

- 879 have a text that no other row has, with a unique pair of names or of name and figure;
- 30 are near-duplicates of an older text, with one figure or name changed;
- 80 are exact duplicates of an older text, half of them in another case or spacing;
- 10 give an older text a second label;
- 1 has no text or an unknown label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from benchmarks.hashing import Bools, Ints, Words, below, hash_words
from benchmarks.wording import ENTITIES, MOJIBAKE, PLAIN, Wording, decoration_kind, make_texts
from finsent.labels import LABELS

CHUNK_ROWS = 250_000  # rows in memory at a time

_BLOCK, _SHUFFLE = 1000, 377  # slots of a block; a multiplier that is coprime with 1000
_NEAR, _DUPLICATE, _CONFLICT, _UNUSABLE = 879, 909, 989, 999  # first slot of each kind of row
_LABEL_BOUNDS = (0.14, 0.68)  # negative below the first, positive from the second


@dataclass(frozen=True)
class Expected:
    """Exact counts of ingest on the rows, where texts in conflict are dropped."""

    rows: int
    unknown_label: int
    missing_text: int
    duplicates: int
    conflicts: int  # rows
    conflict_texts: int
    kept: int
    near: int  # rows whose text is an older one with one figure or name changed; some are dropped
    mojibake: int  # rows; without `missing_text`
    entities: int  # rows; without `missing_text`


def write_rows(folder: Path, rows: int, files: int, seed: int = 0) -> list[Path]:
    """Write `rows` labeled sentences to CSV files of about equal length.

    Columns: Sentence, Sentiment. UTF-8. Duplicates and conflicts span files.

    Args:
        folder: created if it does not exist.
        rows: number of sentences.
        files: number of files, at most `rows`.
        seed: each seed gives other texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wording = Wording.make(seed)
    paths = [folder / f"synthetic-{number:03d}.csv" for number in range(files)]
    for number, path in enumerate(paths):
        first, end = number * rows // files, (number + 1) * rows // files
        with csv.CSVWriter(str(path), _SCHEMA) as writer:
            for table in _tables(first, end, seed, wording):
                writer.write_table(table)
    return paths


def make_rows(first: int, end: int, seed: int = 0) -> pa.Table:
    """Return the rows from `first` to `end` - 1, counted from 0: Sentence, Sentiment."""
    tables = _tables(first, end, seed, Wording.make(seed))
    return pa.concat_tables([_SCHEMA.empty_table(), *tables])


def expected(rows: int, seed: int = 0) -> Expected:
    """Return what ingest must count on the first `rows` rows."""
    totals = np.zeros(5, np.int64)
    duplicated, second_label = [], []
    for first in range(0, rows, CHUNK_ROWS):
        row = _rows_of(np.arange(first, min(first + CHUNK_ROWS, rows)), seed)
        kind = np.where(row.missing_text, PLAIN, decoration_kind(row.base, seed))
        marks = (
            row.near >= 0,
            row.unknown_label,
            row.missing_text,
            kind == MOJIBAKE,
            kind == ENTITIES,
        )
        totals += [int(mark.sum()) for mark in marks]
        duplicated.append(row.base[row.duplicate])
        second_label.append(row.base[row.conflict])
    near, unknown, missing, mojibake, entities = totals.tolist()
    duplicates, conflicts = np.concatenate(duplicated), np.concatenate(second_label)
    texts = np.unique(conflicts)
    duplicates_in_conflict = int(np.isin(duplicates, texts).sum())
    rows_in_conflict = len(texts) + len(conflicts) + duplicates_in_conflict
    duplicate_rows = len(duplicates) - duplicates_in_conflict
    kept_rows = rows - unknown - missing - duplicate_rows - rows_in_conflict
    return Expected(
        rows=rows,
        unknown_label=unknown,
        missing_text=missing,
        duplicates=duplicate_rows,
        conflicts=rows_in_conflict,
        conflict_texts=len(texts),
        kept=kept_rows,
        near=near,
        mojibake=mojibake,
        entities=entities,
    )


_SCHEMA = pa.schema([("Sentence", pa.string()), ("Sentiment", pa.string())])


def _tables(first: int, end: int, seed: int, wording: Wording) -> Iterator[pa.Table]:
    for start in range(first, end, CHUNK_ROWS):
        row = _rows_of(np.arange(start, min(start + CHUNK_ROWS, end)), seed)
        texts = _respell(make_texts(row.base, row.near, seed, wording), row, seed)
        texts = pc.if_else(pa.array(row.missing_text), "", texts)
        yield pa.table([texts, _labels(row, seed)], schema=_SCHEMA)


# --- kind, text and label of each row -----------------------------------------------------------


class _Rows(NamedTuple):
    """Kinds and numbers of rows, one value per row."""

    number: Ints
    base: Ints  # number of the row that has the text, or the text before its change
    near: Ints  # number of the changed text; -1: not changed
    duplicate: Bools
    conflict: Bools
    unknown_label: Bools
    missing_text: Bools


def _rows_of(number: Ints, seed: int) -> _Rows:
    block, position = np.divmod(number, _BLOCK)
    # The first block is in the order of its slots, so that the base of each row is an older row.
    shuffled = (position * _SHUFFLE + below(hash_words(block, seed, 1), _BLOCK)) % _BLOCK
    slot = np.where(block == 0, position, shuffled)
    copies = (slot >= _NEAR) & (slot < _UNUSABLE)
    random = hash_words(number[copies], seed, 2)
    base = number.copy()
    base[copies] = _unique_text(below(random, np.maximum(block[copies], 1)), random, seed)
    unusable = slot == _UNUSABLE
    near = (slot >= _NEAR) & (slot < _DUPLICATE)
    return _Rows(
        number=number,
        base=base,
        near=np.where(near, block * (_DUPLICATE - _NEAR) + slot - _NEAR, -1),
        duplicate=(slot >= _DUPLICATE) & (slot < _CONFLICT),
        conflict=(slot >= _CONFLICT) & (slot < _UNUSABLE),
        unknown_label=unusable & (block % 2 == 0),
        missing_text=unusable & (block % 2 == 1),
    )


def _unique_text(block: Ints, random: Words, seed: int) -> Ints:
    """Return the number of a row with a unique text, in each block."""
    slot = (random & np.uint64(0xFFFFFFFF)).astype(np.int64) * _NEAR >> 32
    unshifted = slot - below(hash_words(block, seed, 1), _BLOCK)
    position = unshifted * pow(_SHUFFLE, -1, _BLOCK) % _BLOCK
    return block * _BLOCK + np.where(block == 0, slot, position)


def _labels(row: _Rows, seed: int) -> pa.Array:
    fraction = hash_words(row.base, seed, 3) / 2.0**64
    label = (fraction >= _LABEL_BOUNDS[0]).astype(np.int64) + (fraction >= _LABEL_BOUNDS[1])
    shift = 1 + (hash_words(row.number, seed, 4) & np.uint64(1)).astype(np.int64)
    label = np.where(row.conflict, (label + shift) % len(LABELS), label)
    label[row.unknown_label] = len(LABELS)
    return pa.array([*LABELS, "mixed"]).take(pa.array(label))


def _respell(texts: pa.Array, row: _Rows, seed: int) -> pa.Array:
    """Return the texts, half of the duplicates in another case or spacing."""
    choice = hash_words(row.number, seed, 5) & np.uint64(3)
    is_plain = decoration_kind(row.base, seed) == PLAIN  # upper case would spoil mojibake
    for number, change in enumerate((pc.utf8_upper, _spaced)):
        mask = pa.array(row.duplicate & (choice == number) & (is_plain | (number == 1)))
        texts = pc.replace_with_mask(texts, mask, change(texts.filter(mask)))
    return texts


def _spaced(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(" ", pc.replace_substring(texts, " ", "  "), "\t", "")
