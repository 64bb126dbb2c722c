"""Conflicts of labels, and the weight and agreement of kept rows."""

from __future__ import annotations

import pytest

from finsent.labels import LABELS
from tests.unit.settling import G, N, Origin, P, Record, key, settled

pytestmark = pytest.mark.cost(1.5, "tries many corpora")


# --- policies -------------------------------------------------------------------------------------


# Sources by position: 0 plain; 1 unseen; 2 priority 2, weight 2; 3 priority 2; 4 priority -1,
# weight 3. A case gives the labels of one text's rows as (source, label).
LOW, HEAVY, HIGH, LAST = 0, 2, 3, 4


@pytest.mark.parametrize(
    ("policy", "rows", "winner"),
    [
        ("drop", [(0, P), (0, P)], P),
        ("drop", [(0, P), (0, G)], None),
        ("drop", [(0, P), (0, P), (0, P), (0, G)], None),
        ("error", [(0, P), (0, P), (0, G)], None),
        ("majority", [(0, P), (0, G)], None),
        ("majority", [(0, G), (0, P), (0, P)], P),
        ("majority", [(0, N), (0, P), (0, G), (0, N), (0, N)], N),
        ("majority", [(0, P), (0, P), (0, G), (0, G), (0, N)], None),
        ("majority", [(0, P), (0, G), (0, N)], None),
        ("majority", [(0, P), (LAST, G)], G),  # weight 3 against 1
        ("majority", [(0, P), (0, P), (HEAVY, G)], None),  # 2 against 2
        ("majority", [(0, P), (0, P), (0, P), (HEAVY, G)], P),
        ("majority", [(HEAVY, N), (HIGH, G), (LAST, P), (LAST, P)], P),
        ("priority", [(0, P), (0, P), (0, P), (HIGH, G)], G),
        ("priority", [(LAST, P), (LAST, P), (0, N)], N),
        ("priority", [(0, P), (0, G), (0, P)], P),  # one rank: its majority
        ("priority", [(0, P), (0, G)], None),
        ("priority", [(0, N), (HIGH, P), (HIGH, G)], None),  # a tie among the highest
        ("priority", [(0, P), (HEAVY, G), (HIGH, P)], G),  # their weights count
        ("priority", [(HEAVY, G), (HIGH, P), (HIGH, P)], None),
        ("priority", [(HIGH, N), (HIGH, N), (HIGH, P)], N),
        ("prefer", [(HIGH, P), (HIGH, P), (0, G)], G),
        ("prefer", [(0, P), (0, N), (0, N)], P),
        ("prefer", [(0, N), (0, N)], N),  # no conflict, so no preference
        ("keep", [(0, P), (0, G), (0, P)], P),
    ],
)
def test_conflict_policies(policy: str, rows: list[tuple[int, str]], winner: str | None) -> None:
    records = [Record(s, n, "Profit rose", label) for n, (s, label) in enumerate(rows, start=2)]
    records.sort(key=lambda record: record.source)
    records.append(Record(4, 99, "Flat", N))
    result = settled(records, {"prefer": [G, P]} if policy == "prefer" else policy)
    labels = {label for _, label in rows}
    winners = labels if policy == "keep" else {winner} - {None}
    kept_rows = [row for row in result.kept.to_pylist() if row["text"] == "Profit rose"]
    assert {LABELS[row["label"]] for row in kept_rows} == winners
    assert len(kept_rows) == len(winners)
    won = sum(label in winners for _, label in rows)
    fates = {fate: int(counts.sum()) for fate, counts in result.fates.items()}
    assert fates == {
        "kept": 1 + len(kept_rows),
        "duplicates": won - len(kept_rows),
        "conflicts": len(rows) - won,
        "excluded": 0,
    }
    decision = {"keep": "kept under each label"}.get(
        policy, f"kept as {winner}" if winner else "dropped"
    )
    assert dict(result.decisions) == ({decision: 1} if len(labels) > 1 else {})


def test_a_preference_for_none_of_the_labels_drops_the_text() -> None:
    records = [Record(0, 2, "Profit rose", P), Record(0, 3, "Profit rose", G)]
    result = settled(records, {"prefer": [N]})
    assert len(result.kept) == 0
    assert result.decisions == {"dropped": 1}


@pytest.mark.parametrize("weights", [(0.1, 0.2, 0.3), (0.3, 0.1, 0.2), (0.7, 0.1, 0.8)])
@pytest.mark.parametrize("policy", ["majority", "priority"])
def test_a_tie_of_rounded_weights_is_a_tie(
    policy: str, weights: tuple[float, float, float]
) -> None:
    heaviest = weights.index(max(weights))
    records = [Record(s, 2, "Profit rose", G if s == heaviest else P) for s in range(3)]
    result = settled(records, policy, [Origin(weight=weight) for weight in weights])
    assert result.decisions == {"dropped": 1}


def test_conflicts_are_shown_with_names_and_raw_texts() -> None:
    records = [Record(0, 2, "Profit rose", P), Record(3, 5, "PROFIT rose", G)]
    conflicts = settled(records, "majority").conflicts.to_pylist()
    common = {"key": key("profit rose").hex(), "decision": "dropped"}
    assert conflicts == [
        common
        | {"text": "Profit rose", "label": P, "source": "s0.csv", "row": 2}
        | {"raw_text": "Profit rose"},
        common
        | {"text": "PROFIT rose", "label": G, "source": "s3.csv", "row": 5}
        | {"raw_text": " PROFIT rose"},
    ]


# --- what a kept row carries ----------------------------------------------------------------------


NAN = float("nan")


@pytest.mark.parametrize(
    ("policy", "rows", "expected"),
    [
        ("drop", [(P, NAN), (P, NAN)], {P: None}),
        ("drop", [(P, NAN), (P, 0.5), (P, 0.75)], {P: 0.75}),
        ("drop", [(P, 1.0), (P, 0.5)], {P: 1.0}),
        ("majority", [(P, 0.5), (P, NAN), (G, 1.0)], {P: 0.5}),  # of its label alone
        ("majority", [(P, NAN), (P, NAN), (G, 1.0)], {P: None}),
        ("keep", [(P, 0.5), (G, 1.0), (N, NAN)], {P: 0.5, G: 1.0, N: None}),
    ],
)
def test_agreement_is_the_best_known_of_the_text_and_its_label(
    policy: str, rows: list[tuple[str, float]], expected: dict[str, float | None]
) -> None:
    records = [Record(s, 2, "Profit rose", label) for s, (label, _) in enumerate(rows)]
    sources = [Origin(agreement=agreement) for _, agreement in rows]
    kept_rows = settled(records, policy, sources).kept.to_pylist()
    assert {LABELS[row["label"]]: row["agreement"] for row in kept_rows} == expected


def test_weight_is_that_of_the_kept_rows_source() -> None:
    records = [Record(2, 2, "Up", P), Record(4, 2, "Up", P), Record(4, 3, "Flat", N)]
    row_of_text = {row["text"]: row for row in settled(records).kept.to_pylist()}
    assert {text: row["weight"] for text, row in row_of_text.items()} == {"Up": 2.0, "Flat": 3.0}
    assert row_of_text["Flat"]["raw_text"] == " Flat"
    assert row_of_text["Flat"]["unit"] == int.from_bytes(key("flat")[:8], "big")
