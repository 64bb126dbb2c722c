"""Ingest on a local Ray: near-duplicates, benchmarks, companies and dates."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from tests.integration.ingested import LABELS, content, make, story, write_csv


def test_a_row_near_two_splits_is_removed_and_no_old_row_moves(tmp_path: Path) -> None:
    """Texts that differ in one word of many, in a growing file."""
    near = ("data.near_duplicates.enabled=true",)
    stories = [story(number, "") for number in range(60)]
    old = [(text, LABELS[i % 3]) for i, text in enumerate(stories)]
    before = make(tmp_path / "a", [write_csv(tmp_path / "a.csv", old)], *near)
    new = [(story(number, " again"), "neutral") for number in range(60)]
    after = make(tmp_path / "b", [write_csv(tmp_path / "b.csv", [*old, *new])], *near)
    assert after.manifest.details.near_groups == 60
    splits = {str(row["text"]): name for name, rows in content(after).items() for row in rows}
    for name, rows in content(before).items():
        for row in rows:
            text = str(row["text"])
            assert splits[text] == name  # nothing moved
            assert splits[f"{text} again"] == name  # and its near-duplicate went along
    groups = {str(r["text"]): r["group"] for rows in content(after).values() for r in rows}
    assert all(groups[text] == groups[f"{text} again"] for text in stories)


def test_equal_and_near_texts_of_a_benchmark_are_removed(tmp_path: Path) -> None:
    rows = [(story(number, ""), LABELS[number % 3]) for number in range(90)]
    source = write_csv(tmp_path / "rows.csv", rows)
    benchmark = tmp_path / "benchmark.csv"
    unseen = [story(0, "").upper(), story(1, " again"), story(1000, "")]
    benchmark.write_text("Sentence\n" + "\n".join(unseen) + "\n")
    version = make(
        tmp_path / "out",
        [source],
        f"data.exclude=[{benchmark}]",
        "data.near_duplicates.enabled=true",
    )
    assert version.manifest.counts.excluded == 2
    assert version.manifest.details.excluded_reasons == {
        "near_excluded": 1,
        "same_as_excluded": 1,
    }
    assert version.manifest.exclude[0].rows == 3
    excluded = pq.read_table(version.path / "excluded.parquet").to_pylist()
    assert {(r["text"], r["reason"], r["match_source"], r["match_row"]) for r in excluded} == {
        (story(0, ""), "same_as_excluded", "benchmark.csv", 2),
        (story(1, ""), "near_excluded", "benchmark.csv", 3),
    }
    texts = {row["text"] for rows in content(version).values() for row in rows}
    assert not texts & {story(0, ""), story(1, "")}


def test_rows_of_a_company_stay_together_and_time_divides(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    lines = [
        json.dumps(
            {
                "text": story(i, ""),
                "label": i % 3,
                "firm": f"firm {i % 20}",
                "day": f"2024-{1 + i % 12:02d}-15",
            }
        )
        for i in range(240)
    ]
    source.write_text("\n".join(lines))
    names = "{0: negative, 1: neutral, 2: positive}"
    entry = f"{{uri: {source}, text: text, label: label, label_map: {names}}}"
    by_firm = make(tmp_path / "firm", [entry], "data.split.group_by=firm", "data.salt=s")
    firm = {i: f"firm {i % 20}" for i in range(240)}
    places: dict[str, set[str]] = {}
    for split, rows in content(by_firm).items():
        for row in rows:
            assert row["unit"] == firm[int(str(row["row"])) - 1]
            places.setdefault(str(row["unit"]), set()).add(split)
    assert len(places) == 20
    assert all(len(splits) == 1 for splits in places.values())
    by_time = make(
        tmp_path / "time",
        [entry],
        "data.split.time.column=day",
        "data.split.time.validation_from=2024-09-01",
        "data.split.time.test_from=2024-11-01",
    )
    months = {
        s: {1 + (int(str(r["row"])) - 1) % 12 for r in rows} for s, rows in content(by_time).items()
    }
    assert months == {"train": {1, 2, 3, 4, 5, 6, 7, 8}, "validation": {9, 10}, "test": {11, 12}}
