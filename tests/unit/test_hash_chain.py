"""The hash chain: tampered records are found and located."""

from __future__ import annotations

import random

import pytest

from finsent.files import digest
from finsent.hash_chain import START, HashChain, first_tampered
from finsent.records import JsonObject

RECORDS: list[JsonObject] = [{"number": number, "label": "neutral"} for number in range(12)]


def linked(records: list[JsonObject]) -> list[tuple[JsonObject, str]]:
    chain = HashChain()
    return [(record, chain.append(record)) for record in records]


def test_an_unchanged_chain_matches() -> None:
    assert first_tampered(linked(RECORDS)) is None
    assert first_tampered([]) is None


def test_a_part_of_a_chain_is_verified_from_the_link_before() -> None:
    pairs = linked(RECORDS)
    assert first_tampered(pairs[5:], pairs[4][1]) is None
    assert first_tampered(pairs[5:], START) == 0


def test_a_digest_replaces_a_dropped_record() -> None:
    chain, full = HashChain(), HashChain()
    assert chain.append_digest(digest(RECORDS[0])) == full.append(RECORDS[0])


@pytest.mark.parametrize("kind", ["change", "delete", "insert", "swap", "relink"])
def test_each_tampering_is_located(kind: str) -> None:
    generator = random.Random(kind)
    for _ in range(40):
        pairs = linked(RECORDS)
        position = generator.randrange(len(pairs) - 1)
        record, link = pairs[position]
        match kind:
            case "change":
                pairs[position] = ({**record, "label": "positive"}, link)
            case "delete":
                del pairs[position]
            case "insert":
                pairs.insert(position, ({"number": -1}, link))
            case "swap":
                pairs[position : position + 2] = pairs[position : position + 2][::-1]
            case "relink":
                pairs[position] = (record, digest(link))
        assert first_tampered(pairs) == position
