"""Invented financial sentences in any number, for benchmarks and for tests that count rows.

A row is a function of the seed and its number alone, by counter-based hashing (SplitMix64, Steele
et al. 2014), so any part can be made by itself. Per 1,000 rows: 879 with a text of their own (a
pair of names, or a name and a figure, that no other has), 30 near-duplicates of an older text (one
figure or name changed), 80 exact duplicates of one (half of them in another case or spacing), 10
that give one a second label, and 1 that is unusable.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from finsent.labels import LABELS

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

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
    """Write `rows` labelled sentences to CSV files of about equal length.

    Columns: Sentence, Sentiment. UTF-8. Duplicates and conflicts span files.

    Args:
        folder: made when it is missing.
        files: how many, at most `rows`.
        seed: other seeds give other texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wording = _Wording.make(seed)
    paths = [folder / f"synthetic-{number:03d}.csv" for number in range(files)]
    for number, path in enumerate(paths):
        first, end = number * rows // files, (number + 1) * rows // files
        with csv.CSVWriter(str(path), _SCHEMA) as writer:
            for table in _tables(first, end, seed, wording):
                writer.write_table(table)
    return paths


def make_rows(first: int, end: int, seed: int = 0) -> pa.Table:
    """Rows `first` to `end` (0 is the first, `end` is not included): Sentence, Sentiment."""
    tables = _tables(first, end, seed, _Wording.make(seed))
    return pa.concat_tables([_SCHEMA.empty_table(), *tables])


def expected(rows: int, seed: int = 0) -> Expected:
    """What ingest must count on the rows 0 to `rows`."""
    totals = np.zeros(5, np.int64)
    duplicated, second_label = [], []
    for first in range(0, rows, CHUNK_ROWS):
        row = _rows_of(np.arange(first, min(first + CHUNK_ROWS, rows)), seed)
        kind = np.where(row.missing_text, _PLAIN, _decoration_kind(row.base, seed))
        marks = (
            row.near >= 0,
            row.unknown_label,
            row.missing_text,
            kind == _MOJIBAKE,
            kind == _ENTITIES,
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


def _tables(first: int, end: int, seed: int, wording: _Wording) -> Iterator[pa.Table]:
    for start in range(first, end, CHUNK_ROWS):
        row = _rows_of(np.arange(start, min(start + CHUNK_ROWS, end)), seed)
        texts = _respell(_texts(row, seed, wording), row, seed)
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


def _hash(values: Ints, seed: int, use: int) -> Words:
    """SplitMix64: 64 random bits for each value, others for each use."""
    state = np.uint64((seed * 0xD1342543DE82EF95 + use * 0xDA942042E4DD58B5) % 2**64)
    z = (values.astype(np.uint64) + state) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _below(words: Words, limit: int | Ints) -> Ints:
    """Numbers from 0 to `limit`, by the high bits."""
    return ((words >> np.uint64(32)).astype(np.int64) * limit) >> 32


def _rows_of(number: Ints, seed: int) -> _Rows:
    block, place = np.divmod(number, _BLOCK)
    # The first block is in the order of the slots, so that every other row finds its base before.
    shuffled = (place * _SHUFFLE + _below(_hash(block, seed, 1), _BLOCK)) % _BLOCK
    slot = np.where(block == 0, place, shuffled)
    copies = (slot >= _NEAR) & (slot < _UNUSABLE)
    random = _hash(number[copies], seed, 2)
    base = number.copy()
    base[copies] = _own_text(_below(random, np.maximum(block[copies], 1)), random, seed)
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
    unshifted = slot - _below(_hash(block, seed, 1), _BLOCK)
    place = unshifted * pow(_SHUFFLE, -1, _BLOCK) % _BLOCK
    return block * _BLOCK + np.where(block == 0, slot, place)


def _labels(row: _Rows, seed: int) -> pa.Array:
    share = _hash(row.base, seed, 3) / 2.0**64
    label = (share >= _LABEL_SHARES[0]).astype(np.int64) + (share >= _LABEL_SHARES[1])
    other = 1 + (_hash(row.number, seed, 4) & np.uint64(1)).astype(np.int64)
    label = np.where(row.conflict, (label + other) % len(LABELS), label)
    label[row.unknown_label] = len(LABELS)
    return pa.array([*LABELS, "mixed"]).take(pa.array(label))


def _respell(texts: pa.Array, row: _Rows, seed: int) -> pa.Array:
    """Half of the duplicates in another case or spacing."""
    way = _hash(row.number, seed, 5) & np.uint64(3)
    plain = _decoration_kind(row.base, seed) == _PLAIN  # upper case would spoil mojibake
    for number, change in enumerate((pc.utf8_upper, _spaced)):
        which = pa.array(row.duplicate & (way == number) & (plain | (number == 1)))
        texts = pc.replace_with_mask(texts, which, change(texts.filter(which)))
    return texts


def _spaced(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(" ", pc.replace_substring(texts, " ", "  "), "\t", "")


# --- texts --------------------------------------------------------------------------------------

_CONSONANTS, _VOWELS = "bdfgklmnprstvzhj", "aeio"
_OPENINGS = """In the first quarter ,|In the second quarter ,|Last year ,|On Monday ,|Breaking :
According to the board ,|As announced earlier ,|At the same time ,|In a filing ,|Analysts say"""
_FORMS = "Oyj|plc|AG|Inc|Group|Holding|Corp|Bank|Energy|Foods|Shipping|Systems||||"
_SUBJECTS = "net sales|operating profit|order book|gross margin|cash flow|net loss|market share"
_VERBS = """rose|fell|grew|slipped|widened|narrowed|climbed|dropped|recovered|was flat|was raised
was cut|beat forecasts|missed forecasts|doubled|eased"""
_AMOUNTS = "to EUR|to $|by USD|from SEK|to about GBP|by some EUR|, now at|from EUR|to nearly CHF"
_PARTNERS = "with|for|from rival|ahead of|together with|, owner of|against|and its partner"
_UNITS = "mn|million|m|billion|%|a share|per tonne|thousand units"
_ACTIONS = """signs|won|lost|opened|closed|will sell|will buy|has delayed|reported|confirmed|denied
reviews|supplies|plans|completed|is to expand|started|suspended|extended|cancelled"""
_ADJECTIVES = """weaker|stronger|higher|lower|new|seasonal|regional|one-off|long-term|wholesale
retail|industrial|digital|annual|quarterly|strategic|domestic|foreign|additional|temporary|planned
global|combined|mobile|medical|marine|organic|private|public|technical|northern|southern|recurring"""
_NOUNS = """demand|costs|orders|prices|margins|deliveries|contracts|freight rates|pulp capacity|fees
inventory|software licences|steel output|loan losses|rents|energy tariffs|store openings|exports|tax
cable sales|paper mills|crane deliveries|bond yields|dividends|layoffs|chip supply|repairs|bookings
advertising|subscriptions|turbine parts|timber stocks|insurance claims|vaccine trials|truck sales
shipments|refining|deposits|mortgages|copper mining|grain storage|rail services|patents|hotel nights
ticket sales|cement volumes|packaging lines|licence income|hiring|audits|pensions|currency hedges"""
_PLACES = """Norway|Poland|Brazil|India|Texas|Estonia|the Baltic states|Germany|Chile|Kenya|Vietnam
Ontario|Turkey|the Nordic region|southern Europe|Spain|Egypt|Greece|Western Africa|Japan|Iceland
the Midwest|Lithuania|Belgium|Indonesia|Austria|New Zealand|Ireland|Portugal|the Gulf|Peru|Quebec"""
_LINKS = "amid|despite|because of|on|after|thanks to|before|under|given|following|with|without"
_TIMES = """next year|this spring|in 2016|in the fourth quarter|by March|in the coming months
since May|during the summer|from January|on Thursday|in late 2014|over five years|at year-end"""
_GERUNDS = """cutting|raising|moving|selling|building|merging|outsourcing|replacing|expanding
testing|financing|reducing|restoring|combining|pricing|shipping"""
_CLAUSES = (  # by their first letters: adjective, noun, place, link, time, gerund
    "{l} {a} {n} in {p}",
    "{l} {a} {n} {t}",
    ", {g} {a} {n} and {n}",
    "and {a} {n} in {p} {t}",
    ", while {a} {n} and {n} hold",
    "{l} {n} , {n} and {n}",
    "{t} , {g} {n} in {p}",
    "in {p} and {p}",
    ", said to need {a} {n}",
    "as {n} in {p} turn {a}",
    "{l} {g} {n}",
)

_PLAIN, _ACCENTS, _ENTITIES, _MOJIBAKE, _QUOTES = range(5)
_KIND_OF_1000 = np.repeat(np.arange(5), [955, 20, 5, 5, 15])
_ACCENTED = """at €{k} a unit|near Zürich and São Tomé|with Société Crédit|under the “Vision” plan
for the group\u2019s café chain|in Ma\u0301laga|via Jyväskylä|\u2013 a first|, says Åse Nyström"""
_ENTITY = "in R&amp;D|under the &quot;core&quot; plan|for staff&#8217;s sake|at &euro;{k} a unit"
_BROKEN = "at €{k} a unit|near Zürich and Málaga|for the group\u2019s café chain|in Jyväskylä"
_QUOTED = 'called "solid" by the chair|, "{k} in all" , it said|under the "Next" plan'

_CLAUSE_COUNTS = np.repeat(np.arange(7), [33, 31, 16, 9, 6, 4, 1])
# The slots' orders: opening, name in three pieces, subject, verb, link, figure in two, its unit,
# four clauses, decoration, end.
_ORDERS = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [0, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 12, 13, 15],
        [0, 1, 2, 3, 4, 5, 10, 11, 6, 7, 8, 9, 14, 12, 13, 15],
        [0, 4, 5, 6, 7, 8, 9, 10, 14, 11, 1, 2, 3, 12, 13, 15],
    ]
)


@dataclass(frozen=True)
class _Wording:
    """All pieces that texts are made of, each with its leading space; pools are ranges of it."""

    pieces: pa.Array
    pools: dict[str, range]

    @classmethod
    def make(cls, seed: int) -> _Wording:
        """The pieces of a seed."""
        generator = random.Random(seed)
        syllables = [c + v for c, v in product(_CONSONANTS, _VOWELS)]
        clauses = [_clause(generator) for _ in range(16_384)]
        pairs = zip(clauses, generator.sample(clauses, len(clauses)), strict=True)
        accented, entity, quoted = (_numbered(w) for w in (_ACCENTED, _ENTITY, _QUOTED))
        mojibake = [w.encode().decode("cp1252") for w in _numbered(_BROKEN)]
        pools = {
            "empty": [""],
            "opening": _spaced_words(_OPENINGS) + [""] * 14,
            "name": [" " + (a + b).capitalize() for a, b in product(syllables, repeat=2)],
            "ending": syllables,
            "endings": [a + b + c for a, b, c in product(syllables, syllables[:8], syllables[:8])],
            "form": _spaced_words(_FORMS),
            "subject": [f"{of} {s}" for s in _words(_SUBJECTS) for of in ("", " 's")],
            "verb": _spaced_words(_VERBS),
            "deal": [
                f" {v} {a} {n}"
                for v in _words(_ACTIONS)
                for a in _words(_ADJECTIVES)
                for n in generator.sample(_words(_NOUNS), 16)
            ],
            "amount": _spaced_words(_AMOUNTS),
            "partner": _spaced_words(_PARTNERS),
            "figure": [f" {n}" for n in range(1 << 16)],
            "tenth": [f".{n}" for n in range(10)],
            "exact": [f".{n:04d}" for n in range(1 << 12)],
            "unit": _spaced_words(_UNITS),
            "clause": clauses,
            "clauses": [first + second for first, second in pairs],
            "end": [" .", " .", ".", ""],
            "accents": accented,
            "entities": entity,
            "mojibake": mojibake,
            "quotes": quoted,
        }
        starts = np.cumsum([0, *(len(pool) for pool in pools.values())]).tolist()
        places = zip(pools.items(), starts, strict=False)
        return cls(
            pa.array([piece for pool in pools.values() for piece in pool], pa.string()),
            {name: range(start, start + len(pool)) for (name, pool), start in places},
        )


def _words(text: str) -> list[str]:
    return text.replace("\n", "|").split("|")


def _spaced_words(text: str) -> list[str]:
    return [f" {word}" if word else "" for word in _words(text)]


def _numbered(text: str) -> list[str]:
    return [word.format(k=k) for word in _spaced_words(text) for k in range(1, 900, 7)]


def _clause(generator: random.Random) -> str:
    kinds = {"a": _ADJECTIVES, "n": _NOUNS, "p": _PLACES, "l": _LINKS, "t": _TIMES, "g": _GERUNDS}
    pattern = generator.choice(_CLAUSES)
    for kind, words in kinds.items():
        while (place := f"{{{kind}}}") in pattern:
            pattern = pattern.replace(place, generator.choice(_words(words)), 1)
    return f" {pattern}"


def _decoration_kind(base: Ints, seed: int) -> Ints:
    return _KIND_OF_1000[_below(_hash(base, seed, 6), 1000)]


def _texts(row: _Rows, seed: int, wording: _Wording) -> pa.Array:
    pieces = _pieces(row, seed, wording)
    order = _below(_hash(row.base, seed, 7), len(_ORDERS))
    pieces = np.take_along_axis(pieces, _ORDERS[order], axis=1)
    taken = wording.pieces.take(pa.array(pieces.ravel()))
    # The pieces of a text lie one after the other: every sixteenth end is the end of a text.
    _, ends, characters = taken.buffers()
    offsets = np.frombuffer(ends, np.int32)[: pieces.size + 1 : pieces.shape[1]]
    joined = pa.StringArray.from_buffers(len(pieces), pa.py_buffer(offsets.copy()), characters)
    return pc.utf8_ltrim_whitespace(joined)


def _pieces(row: _Rows, seed: int, wording: _Wording) -> Ints:
    """Positions in `wording.pieces`, (rows, 16): the slots that `_ORDERS` arranges."""
    drawn = [_hash(row.base, seed, use) for use in range(10, 15)]
    identity = _identity(row.base, seed)
    first, second = identity >> 16, identity & 0xFFFF
    numeric = (drawn[0] & np.uint64(1)) == 0
    changed = row.near >= 0

    def at(pool: str, index: Ints) -> Ints:
        return wording.pools[pool].start + index

    def pick(pool: str, word: int, shift: int) -> Ints:
        """By 16 bits of one of the drawn words."""
        bits = (drawn[word] >> np.uint64(shift) & np.uint64(0xFFFF)).astype(np.int64)
        return at(pool, bits * len(wording.pools[pool]) >> 16)

    count = _CLAUSE_COUNTS[_below(drawn[1], len(_CLAUSE_COUNTS))]
    empty = wording.pools["empty"].start
    # One figure or name of a changed text is of a form that no other text has.
    figure = np.where(changed, at("figure", row.near >> 12 & 0xFFFF), at("figure", second))
    decimals = np.where(changed, at("exact", row.near & 0xFFF), pick("tenth", 0, 48))
    name = np.where(changed, at("name", row.near >> 12 & 0xFFF), at("name", second >> 4))
    ending = np.where(changed, at("endings", row.near & 0xFFF), at("ending", second & 0xF))
    clauses = [
        np.where(
            count >= 2 * number + 2,
            pick("clauses", 2, 16 * number),
            np.where(count == 2 * number + 1, pick("clause", 2, 16 * number), empty),
        )
        for number in range(4)
    ]
    columns = [
        pick("opening", 3, 0),
        at("name", first >> 6),
        at("ending", first & 0x3F),
        pick("form", 3, 16),
        np.where(numeric, pick("subject", 3, 32), empty),
        np.where(numeric, pick("verb", 3, 48), pick("deal", 4, 0)),
        np.where(numeric, pick("amount", 4, 16), pick("partner", 4, 16)),
        np.where(numeric, figure, name),
        np.where(numeric, decimals, ending),
        np.where(numeric, pick("unit", 4, 32), pick("form", 4, 32)),
        *clauses,
        _decorations(row.base, seed, wording),
        pick("end", 4, 48),
    ]
    return np.column_stack(columns)


def _identity(base: Ints, seed: int) -> Ints:
    """34 bits that are another number for each base: multiplied and folded, which can be undone."""
    mask = (1 << 34) - 1
    value = (base + seed) & mask
    for factor in (0x2C9277B5, 0x19D699A5):
        value = value * factor & mask  # the low bits survive an overflow
        value ^= value >> 17
    return value


def _decorations(base: Ints, seed: int, wording: _Wording) -> Ints:
    kind = _decoration_kind(base, seed)
    pools = ("empty", "accents", "entities", "mojibake", "quotes")
    start = np.array([wording.pools[name].start for name in pools])
    size = np.array([len(wording.pools[name]) for name in pools])
    return start[kind] + _below(_hash(base, seed, 8), size[kind])
