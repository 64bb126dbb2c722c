"""Invented financial sentences in any number, for benchmarks and for tests that count rows.

A row is a function of the seed and its number alone, by counter-based hashing (SplitMix64, Steele
et al. 2014), so any part can be made by itself. Per 1,000 rows: 879 with a text of their own (a
pair of names, or a name and a figure, that no other has), 30 near-duplicates of an older text (one
figure or name changed), 80 exact duplicates of one (half of them in another case or spacing), 10
that give one a second label, and 1 that is unusable.
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

CHUNK_ROWS = 250_000  # what is in memory at once

_BLOCK, _SHUFFLE = 1000, 377  # slots of a block; a multiplier that is coprime with it
_NEAR, _DUPLICATE, _CONFLICT, _UNUSABLE = 879, 909, 989, 999  # first slot of each fate
_LABEL_SHARES = (0.14, 0.68)  # negative below the first, positive from the second


@dataclass(frozen=True)
class Expected:
    """What must become of the rows when texts in conflict are dropped; exact."""

    rows: int
    unknown_label: int
    missing_text: int
    duplicates: int
    conflicts: int  # rows
    conflict_texts: int
    kept: int
    near: int  # rows that are an older text with one figure or name changed; some are dropped
    mojibake: int  # rows; without `missing_text`
    entities: int  # rows; without `missing_text`


def write_rows(folder: Path, rows: int, files: int, seed: int = 0) -> list[Path]:
    """Write `rows` labeled sentences to CSV files of about equal length.

    Columns: Sentence, Sentiment. UTF-8. Duplicates and conflicts span files.

    Args:
        folder: made when it is missing.
        files: how many, at most `rows`.
        seed: other seeds give other texts.
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
    """Rows `first` to `end` (0 is the first, `end` is not included): Sentence, Sentiment."""
    tables = _tables(first, end, seed, Wording.make(seed))
    return pa.concat_tables([_SCHEMA.empty_table(), *tables])


def expected(rows: int, seed: int = 0) -> Expected:
    """What ingest must count on the rows 0 to `rows`."""
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
    dropped = int(np.isin(duplicates, texts).sum())
    in_conflict = len(texts) + len(conflicts) + dropped
    counted = len(duplicates) - dropped
    kept = rows - unknown - missing - counted - in_conflict
    return Expected(
        rows=rows,
        unknown_label=unknown,
        missing_text=missing,
        duplicates=counted,
        conflicts=in_conflict,
        conflict_texts=len(texts),
        kept=kept,
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


# --- what each row is ---------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Rows by what they are; one value a row."""

    number: Ints
    base: Ints  # number of the row that has the text, or the text before its change
    near: Ints  # number of the changed text, -1: not changed
    duplicate: Bools
    conflict: Bools
    unknown_label: Bools
    missing_text: Bools


def _rows_of(number: Ints, seed: int) -> _Rows:
    block, place = np.divmod(number, _BLOCK)
    # The first block is in the order of the slots, so that every other row finds its base before.
    shuffled = (place * _SHUFFLE + below(hash_words(block, seed, 1), _BLOCK)) % _BLOCK
    slot = np.where(block == 0, place, shuffled)
    copies = (slot >= _NEAR) & (slot < _UNUSABLE)
    random = hash_words(number[copies], seed, 2)
    base = number.copy()
    base[copies] = _own_text(below(random, np.maximum(block[copies], 1)), random, seed)
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


def _own_text(block: Ints, random: Words, seed: int) -> Ints:
    """A row of each block that has a text of its own."""
    slot = (random & np.uint64(0xFFFFFFFF)).astype(np.int64) * _NEAR >> 32
    unshifted = slot - below(hash_words(block, seed, 1), _BLOCK)
    place = unshifted * pow(_SHUFFLE, -1, _BLOCK) % _BLOCK
    return block * _BLOCK + np.where(block == 0, slot, place)


def _labels(row: _Rows, seed: int) -> pa.Array:
    share = hash_words(row.base, seed, 3) / 2.0**64
    label = (share >= _LABEL_SHARES[0]).astype(np.int64) + (share >= _LABEL_SHARES[1])
    other = 1 + (hash_words(row.number, seed, 4) & np.uint64(1)).astype(np.int64)
    label = np.where(row.conflict, (label + other) % len(LABELS), label)
    label[row.unknown_label] = len(LABELS)
    return pa.array([*LABELS, "mixed"]).take(pa.array(label))


def _respell(texts: pa.Array, row: _Rows, seed: int) -> pa.Array:
    """Half of the duplicates in another case or spacing."""
    way = hash_words(row.number, seed, 5) & np.uint64(3)
    plain = decoration_kind(row.base, seed) == PLAIN  # upper case would spoil mojibake
    for number, change in enumerate((pc.utf8_upper, _spaced)):
        which = pa.array(row.duplicate & (way == number) & (plain | (number == 1)))
        texts = pc.replace_with_mask(texts, which, change(texts.filter(which)))
    return texts


def _spaced(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(" ", pc.replace_substring(texts, " ", "  "), "\t", "")
