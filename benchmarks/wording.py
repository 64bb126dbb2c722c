"""Invented financial sentences, each a function of a seed and a number."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.hashing import Ints, below, hash_words

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

PLAIN, ACCENTS, ENTITIES, MOJIBAKE, QUOTES = range(5)  # kinds of decoration
_KIND_OF_1000 = np.repeat(np.arange(5), [955, 20, 5, 5, 15])
_ACCENTED = """at €{k} a unit|near Zürich and São Tomé|with Société Crédit|under the “Vision” plan
for the group\u2019s café chain|in Ma\u0301laga|via Jyväskylä|\u2013 a first|, says Åse Nyström"""
_ENTITY = "in R&amp;D|under the &quot;core&quot; plan|for staff&#8217;s sake|at &euro;{k} a unit"
_BROKEN = "at €{k} a unit|near Zürich and Málaga|for the group\u2019s café chain|in Jyväskylä"
_QUOTED = 'called "solid" by the chair|, "{k} in all" , it said|under the "Next" plan'

_CLAUSE_COUNTS = np.repeat(np.arange(7), [33, 31, 16, 9, 6, 4, 1])
# Orders of the 16 pieces of a text. The pieces are: opening, three parts of a name, subject, verb,
# amount or partner, two parts of a figure or name, unit or form, four clauses, decoration, end.
_ORDERS = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [0, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 12, 13, 15],
        [0, 1, 2, 3, 4, 5, 10, 11, 6, 7, 8, 9, 14, 12, 13, 15],
        [0, 4, 5, 6, 7, 8, 9, 10, 14, 11, 1, 2, 3, 12, 13, 15],
    ]
)


@dataclass(frozen=True)
class Wording:
    """All pieces of texts, each with its leading space. Pools are ranges of `pieces`."""

    pieces: pa.Array
    pools: dict[str, range]

    @classmethod
    def make(cls, seed: int) -> Wording:
        """Return the pieces of a seed."""
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
        positioned = zip(pools.items(), starts, strict=False)
        return cls(
            pa.array([piece for pool in pools.values() for piece in pool], pa.string()),
            {name: range(start, start + len(pool)) for (name, pool), start in positioned},
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
        while (slot := f"{{{kind}}}") in pattern:
            pattern = pattern.replace(slot, generator.choice(_words(words)), 1)
    return f" {pattern}"


def decoration_kind(base: Ints, seed: int) -> Ints:
    """Return the kind of decoration of each text, PLAIN to QUOTES."""
    return _KIND_OF_1000[below(hash_words(base, seed, 6), 1000)]


def make_texts(base: Ints, near: Ints, seed: int, wording: Wording) -> pa.Array:
    """Return a text for each row.

    Args:
        base: number of the row that has the text, or the text before its change.
        near: number of the changed text; -1: not changed.
    """
    pieces = _pieces(base, near, seed, wording)
    order = below(hash_words(base, seed, 7), len(_ORDERS))
    pieces = np.take_along_axis(pieces, _ORDERS[order], axis=1)
    pieces_in_order = wording.pieces.take(pa.array(pieces.ravel()))
    # The 16 pieces of a text follow each other, so every sixteenth end is the end of a text.
    _, ends, characters = pieces_in_order.buffers()
    offsets = np.frombuffer(ends, np.int32)[: pieces.size + 1 : pieces.shape[1]]
    joined = pa.StringArray.from_buffers(len(pieces), pa.py_buffer(offsets.copy()), characters)
    return pc.utf8_ltrim_whitespace(joined)


def _pieces(base: Ints, near: Ints, seed: int, wording: Wording) -> Ints:
    """Return positions in `wording.pieces`, shape (rows, 16), before `_ORDERS` arranges them."""
    words = [hash_words(base, seed, use) for use in range(10, 15)]
    identity = _identity(base, seed)
    first, second = identity >> 16, identity & 0xFFFF
    is_numeric = (words[0] & np.uint64(1)) == 0
    is_changed = near >= 0

    def at(pool: str, index: Ints) -> Ints:
        return wording.pools[pool].start + index

    def pick(pool: str, word: int, shift: int) -> Ints:
        """Return positions in a pool, chosen by 16 bits of a random word."""
        bits = (words[word] >> np.uint64(shift) & np.uint64(0xFFFF)).astype(np.int64)
        return at(pool, bits * len(wording.pools[pool]) >> 16)

    count = _CLAUSE_COUNTS[below(words[1], len(_CLAUSE_COUNTS))]
    empty = wording.pools["empty"].start
    # One figure or name of a changed text has a form that no other text has.
    figure = np.where(is_changed, at("figure", near >> 12 & 0xFFFF), at("figure", second))
    decimals = np.where(is_changed, at("exact", near & 0xFFF), pick("tenth", 0, 48))
    name = np.where(is_changed, at("name", near >> 12 & 0xFFF), at("name", second >> 4))
    ending = np.where(is_changed, at("endings", near & 0xFFF), at("ending", second & 0xF))
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
        np.where(is_numeric, pick("subject", 3, 32), empty),
        np.where(is_numeric, pick("verb", 3, 48), pick("deal", 4, 0)),
        np.where(is_numeric, pick("amount", 4, 16), pick("partner", 4, 16)),
        np.where(is_numeric, figure, name),
        np.where(is_numeric, decimals, ending),
        np.where(is_numeric, pick("unit", 4, 32), pick("form", 4, 32)),
        *clauses,
        _decorations(base, seed, wording),
        pick("end", 4, 48),
    ]
    return np.column_stack(columns)


def _identity(base: Ints, seed: int) -> Ints:
    """Return a unique number of 34 bits for each base: both steps of the mixing are invertible."""
    mask = (1 << 34) - 1
    value = (base + seed) & mask
    for factor in (0x2C9277B5, 0x19D699A5):
        value = value * factor & mask  # the low bits survive an overflow
        value ^= value >> 17
    return value


def _decorations(base: Ints, seed: int, wording: Wording) -> Ints:
    kind = decoration_kind(base, seed)
    pools = ("empty", "accents", "entities", "mojibake", "quotes")
    start = np.array([wording.pools[name].start for name in pools])
    size = np.array([len(wording.pools[name]) for name in pools])
    return start[kind] + below(hash_words(base, seed, 8), size[kind])
