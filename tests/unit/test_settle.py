"""The fate of every row: kept, duplicate, conflict or excluded, and exactly one of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.data.config import DataConfig
from finsent.data.ingest.settle import KEPT, excluded_rows, settle
from finsent.labels import LABELS
from tests.properties import examples
from tests.unit.settling import SOURCES, G, N, P, Record, key, settled, table, traits

pytestmark = pytest.mark.cost(1.5, "tries many corpora")


POLICIES: list[Any] = [
    "drop",
    "majority",
    "priority",
    "keep",
    "error",
    {"prefer": [G, P]},
    {"prefer": [N]},
]


def places(rows: pa.Table) -> list[tuple[int, int]]:
    sources = [int(s[1]) if isinstance(s, str) else s for s in rows["source"].to_pylist()]
    return sorted(zip(sources, rows["row"].to_pylist(), strict=True))


# --- what holds whatever the rows are -------------------------------------------------------------


@st.composite
def record_lists(draw: st.DrawFn) -> list[Record]:
    """Few texts under many labels, in the order of the sources, as the exchange delivers them."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, len(SOURCES) - 1),
                st.sampled_from(["Firm A grew", "FIRM A grew", "Firm B", "Firm C", "D"]),
                st.sampled_from([P, P, N, G]),
            ),
            max_size=25,
        )
    )
    return [
        Record(source, row, text, None if SOURCES[source].excluded else label)
        for row, (source, text, label) in enumerate(sorted(drawn, key=lambda d: d[0]), start=2)
    ]


@examples(250)
@given(record_lists(), st.sampled_from(POLICIES))
def test_every_labeled_row_has_exactly_one_fate(records: list[Record], policy: Any) -> None:
    found = settled(records, policy)
    labeled = [r for r in records if r.label is not None]
    unseen = {r.text.lower() for r in records if r.label is None}
    texts: dict[str, list[Record]] = {}
    for record in labeled:
        if record.text.lower() not in unseen:
            texts.setdefault(record.text.lower(), []).append(record)
    disputed = {t: rows for t, rows in texts.items() if len({r.label for r in rows}) > 1}

    # All fates together, source by source, are all labeled rows.
    total = np.sum([found.fates[fate] for fate in found.fates], axis=0)
    assert total.tolist() == [sum(r.source == s for r in labeled) for s in range(len(SOURCES))]
    assert set(found.fates) == {"kept", "duplicates", "conflicts", "excluded"}

    # What must stay unseen beats everything else.
    excluded = sorted((r.source, r.row) for r in labeled if r.text.lower() in unseen)
    assert places(found.excluded) == excluded
    assert set(found.excluded["reason"].to_pylist()) <= {"same_as_excluded"}

    # The table of conflicts has every row of every disputed text, and nothing else.
    assert places(found.conflicts) == sorted(
        (r.source, r.row) for rows in disputed.values() for r in rows
    )
    assert sum(found.decisions.values()) == len(disputed)

    # Kept rows: sorted, one a text, the first in the order of the sources that has the label.
    kept = found.kept
    assert kept.schema == KEPT
    keys = kept["key"].to_pylist()
    assert keys == sorted(keys)
    firsts: dict[tuple[str, str | None], Record] = {}
    for record in labeled:
        firsts.setdefault((record.text.lower(), record.label), record)
    of_key = {key(text): text for text in texts}
    chosen: dict[str, list[str]] = {}
    for row in kept.to_pylist():
        text, label = of_key[row["key"]], LABELS[row["label"]]
        first = firsts[text, label]
        assert (row["source"], row["row"], row["text"]) == (first.source, first.row, first.text)
        chosen.setdefault(text, []).append(label)
    if policy == "keep":
        assert {text: set(ls) for text, ls in chosen.items()} == {
            text: {r.label for r in rows} for text, rows in texts.items()
        }
    assert policy == "keep" or all(len(ls) == 1 for ls in chosen.values())
    assert texts.keys() - chosen.keys() <= disputed.keys()  # only a conflict drops a text

    # The decision says what was done.
    wanted = {t: f"kept as {chosen[t][0]}" if t in chosen else "dropped" for t in disputed}
    if policy == "keep":
        wanted = dict.fromkeys(disputed, "kept under each label")
    shown = found.conflicts
    told = zip(*(shown[name].to_pylist() for name in ("text", "decision")), strict=True)
    assert {text.lower(): decision for text, decision in told} == wanted
    assert found.decisions == Counter(wanted.values())

    # No classifier can be right more often than on each text's most frequent label.
    assert found.best_votes == sum(
        max(Counter(r.label for r in rows).values()) for rows in texts.values()
    )
    assert found.kept_best_votes == len(chosen)


@examples(100)
@given(record_lists(), st.sampled_from(POLICIES), st.integers(2, 4), st.randoms())
def test_partitions_and_their_order_change_nothing(
    records: list[Record], policy: Any, partitions: int, random: Any
) -> None:
    whole = settled(records, policy)
    spread = [[r for r in records if key(r.text)[0] % partitions == p] for p in range(partitions)]
    for rows in spread:  # the texts in another order, each text's rows in theirs
        rank = {text.lower(): random.random() for text in (r.text for r in rows)}
        rows.sort(key=lambda r: rank[r.text.lower()])
    parts = [settled(rows, policy) for rows in spread]
    for name in ("kept", "conflicts", "excluded", "texts"):
        joined = pa.concat_tables([getattr(part, name) for part in parts])
        together = [("key", "ascending"), ("label" if name == "kept" else "key", "ascending")]
        table = getattr(whole, name)
        assert joined.schema == table.schema
        assert joined.sort_by(together).to_pylist() == table.sort_by(together).to_pylist()
    for fate in whole.fates:
        added = np.sum([part.fates[fate] for part in parts], axis=0)
        assert added.tolist() == whole.fates[fate].tolist()
    assert sum((part.decisions for part in parts), Counter()) == whole.decisions
    assert sum(part.best_votes for part in parts) == whole.best_votes


# --- texts ----------------------------------------------------------------------------------------


def test_texts_to_compare_do_not_depend_on_labels() -> None:
    records = [
        Record(0, 7, "Up", P),
        Record(0, 9, "Down", G),
        Record(1, 3, "Seen elsewhere", None),
        Record(2, 2, "UP", G),
        Record(3, 4, "seen elsewhere", N),
    ]
    for policy in POLICIES:
        rows = sorted(settled(records, policy).texts.to_pylist(), key=lambda row: row["order"])
        assert [(row["text"], row["excluded"]) for row in rows] == [
            ("Up", False),  # dropped by some policies
            ("Down", False),
            ("Seen elsewhere", True),
        ]
        assert [row["order"] for row in rows] == [7, 9, (1 << 40) + 3]
        assert [row["key"] for row in rows] == [
            int.from_bytes(key(row["text"])[:8], "big") for row in rows
        ]


def test_keys_that_share_their_first_half_are_two_texts() -> None:
    first, second = b"same-hlf" + b"a" * 8, b"same-hlf" + b"b" * 8
    records = [
        Record(0, 2, "Up", P),
        Record(0, 3, "Down", G),
        Record(0, 4, "up", P),
        Record(2, 2, "UP", P),
    ]
    keys = [second, first, second, second]
    found = settle(table(records, keys), traits(SOURCES), DataConfig())
    kept = [(row["key"], row["text"]) for row in found.kept.to_pylist()]
    assert kept == [(first, "Down"), (second, "Up")]
    assert found.fates["duplicates"].tolist() == [1, 0, 1, 0, 0]


# --- odd tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("records", [[], [Record(1, 2, "Unseen", None)]])
def test_no_labeled_rows_give_empty_tables(records: list[Record], policy: Any) -> None:
    found, full = settled(records, policy), settled([Record(0, 2, "a", P), Record(0, 3, "a", G)])
    for name in ("kept", "conflicts", "excluded"):
        assert len(getattr(found, name)) == 0
        assert getattr(found, name).schema == getattr(full, name).schema
    assert found.texts.schema == full.texts.schema
    assert len(found.texts) == len(records)
    assert all(counts.tolist() == [0] * len(SOURCES) for counts in found.fates.values())
    assert (found.best_votes, found.kept_best_votes, found.decisions) == (0, 0, {})


def test_rows_in_chunks_and_slices_are_settled_as_one_table() -> None:
    records = [Record(0, n, f"Firm {n % 5}", P if n % 7 else G) for n in range(2, 40)]
    whole = table(records)
    chunked = pa.concat_tables([whole.slice(0, 0), whole.slice(0, 11), whole.slice(11)])
    sliced = pa.concat_tables([table(records[:3]), whole]).combine_chunks().slice(3)
    for other in (chunked, sliced):
        found = settle(other, traits(SOURCES), DataConfig(conflicts="majority"))
        assert found.kept == settled(records, "majority").kept


def test_rows_excluded_later_have_the_same_columns() -> None:
    found = settled([Record(0, 2, "Up", P), Record(1, 2, "Flat", None), Record(2, 3, "Flat", N)])
    near = np.array([1 << 40 | 2], np.uint64)
    later = excluded_rows(found.kept, np.array([True]), "near_excluded", near, traits(SOURCES))
    assert later.schema == found.excluded.schema
    [row] = later.to_pylist()
    assert row == {
        "key": key("up").hex(),
        "text": "Up",
        "label": P,
        "source": "s0.csv",
        "row": 2,
        "raw_text": "Up",
        "reason": "near_excluded",
        "match_source": "s1.csv",
        "match_row": 2,
    }
    [same] = found.excluded.to_pylist()
    assert (same["reason"], same["match_source"], same["match_row"]) == (
        "same_as_excluded",
        "s1.csv",
        2,
    )
