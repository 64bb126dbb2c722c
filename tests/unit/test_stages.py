"""The steps of ingest from files to splits, without Ray: invariants over random rows."""

from __future__ import annotations

import csv
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.config import load
from finsent.data.ingest.groups import resolve
from finsent.data.ingest.stages import (
    Plan,
    compare_partition,
    read_edges,
    scan,
    settle_partition,
    write_partition,
)
from finsent.data.ingest.tally import Tally
from finsent.data.rows.split import SPLITS, split_of
from finsent.data.sources.files import find_sources
from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.settings import Settings
from tests.properties import examples

pytestmark = pytest.mark.cost(3, "tries many corpora")

Row = tuple[str, ...]


class Made(NamedTuple):
    tally: Tally
    rows: list[dict[str, Any]]  # what the splits hold

    @property
    def splits(self) -> dict[str, set[str]]:
        """The splits in which each text stands."""
        splits_of_text: dict[str, set[str]] = {}
        for row in self.rows:
            splits_of_text.setdefault(row["text"], set()).add(row["split"])
        return splits_of_text


def write(path: Path, header: Sequence[str], rows: Sequence[Row]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def make(folder: Path, *overrides: str, partitions: int = 3) -> Made:
    """All steps of an ingest, in turn, in this process."""
    config = load(Settings, [], [*overrides, "data.label_noise.enabled=false"]).data
    files = find_sources(config, folder / "hubs")
    out = Path(tempfile.mkdtemp(dir=folder))
    plan, tally = Plan(files, config, out, partitions), Tally(files, config)
    for index, file in enumerate(files):
        for block in file.rows(index):
            tally.add_scan(scan(plan, block))
    tally.check_scanned()
    for partition in range(partitions):
        settled = settle_partition(plan, partition)
        if settled is not None:
            tally.add_settled(settled)
    if config.near_duplicates.enabled:
        for partition in range(plan.by_band.partitions):
            compare_partition(plan, partition)
        groups = resolve(
            read_edges(plan),
            lambda units: split_of(units, config.salt, config.split),
            plan.splits_by_text,
        )
        for partition in range(partitions):
            written = write_partition(plan, partition, groups)
            if written is not None:
                tally.add_written(written)
    rows = [
        {**row, "split": split}
        for split in SPLITS
        for file_ in (out / split).glob("*.parquet")
        for row in pq.read_table(file_, partitioning=None).to_pylist()
    ]
    return Made(tally, rows)


def story(number: int, end: str = "") -> str:
    rng = random.Random(number)
    return " ".join("".join(rng.choices("aeiounrstlm", k=6)) for _ in range(20)) + end


FIRM = ("Sentence", "Sentiment", "firm")
DAY = ("Sentence", "Sentiment", "day")
TIME = "data.split.time={column: day, validation_from: 2024-03-01, test_from: 2024-06-01}"


def test_near_texts_stay_together_when_a_conflict_is_won_by_another_firm(tmp_path: Path) -> None:
    """The split is that of the row which is kept, also for what is near to it."""
    old = write(tmp_path / "a.csv", FIRM, [(story(i), "negative", f"A{i % 7}") for i in range(60)])
    won = write(tmp_path / "b.csv", FIRM, [(story(i), "positive", f"B{i % 9}") for i in range(60)])
    for firm, removed in (("A", True), ("B", False)):
        count = 7 if firm == "A" else 9
        near = [(story(i, " again"), "neutral", f"{firm}{i % count}") for i in range(60)]
        newer = write(tmp_path / "c.csv", FIRM, near)
        made = make(
            tmp_path,
            f"data.sources=['{old}', {{uri: '{won}', priority: 1}}, '{newer}']",
            "data.conflicts=priority",
            "data.split.group_by=firm",
        )
        both = [i for i in range(60) if {story(i), story(i, " again")} <= made.splits.keys()]
        assert both
        assert all(made.splits[story(i)] == made.splits[story(i, " again")] for i in both)
        assert (made.tally.excluded_reasons["near_two_splits"] > 0) == removed


@pytest.mark.parametrize("near", ["true", "false"])
def test_no_text_is_in_two_splits_under_keep(tmp_path: Path, near: str) -> None:
    a = [(story(i), "negative", f"2023-01-{1 + i % 28:02d}") for i in range(90)]
    b = [(story(i), "positive", f"2024-0{1 + i % 9}-01") for i in range(90)]
    first_file, second_file = write(tmp_path / "a.csv", DAY, a), write(tmp_path / "b.csv", DAY, b)
    made = make(
        tmp_path,
        f"data.sources=['{second_file}', '{first_file}']",
        "data.conflicts=keep",
        TIME,
        f"data.near_duplicates.enabled={near}",
    )
    assert len(made.rows) == 180
    assert len(made.splits) == 90
    assert all(len(splits) == 1 for splits in made.splits.values())
    assert {split for splits in made.splits.values() for split in splits} == {*SPLITS}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Sentence\n" + "".join(f"{story(i)}, {i}\n" for i in range(20)), "malformed_row: 20"),
        ("Sentence,x\n" + "".join(f",{story(i)}\n" for i in range(20)), "missing_text: 20"),
    ],
    ids=["commas", "no text"],
)
def test_an_unreadable_benchmark_stops_the_ingest(tmp_path: Path, content: str, words: str) -> None:
    """Else its texts would be trained on, and the manifest would say that they were kept out."""
    rows = write(tmp_path / "a.csv", FIRM, [(story(i), LABELS[i % 3], "A") for i in range(50)])
    (tmp_path / "benchmark.csv").write_text(content)
    with pytest.raises(InputError, match=rf"data.exclude: 'benchmark.csv': 20 of 20.*{words}"):
        make(tmp_path, f"data.sources=['{rows}']", f"data.exclude=['{tmp_path}/benchmark.csv']")


def test_a_benchmark_may_hold_long_and_a_few_empty_texts(tmp_path: Path) -> None:
    long = " ".join(story(i) for i in range(60))
    sources = write(tmp_path / "a.csv", FIRM, [(story(i), LABELS[i % 3], "A") for i in range(50)])
    texts = [(long,), *((story(i),) for i in range(200, 398)), ("",)]
    benchmark = write(tmp_path / "benchmark.csv", ("Sentence",), texts)
    made = make(tmp_path, f"data.sources=['{sources}']", f"data.exclude=['{benchmark}']")
    [benchmark_entry] = made.tally.manifest("v", None).exclude
    assert (benchmark_entry.rows, benchmark_entry.rejected) == (200, 1)
    assert benchmark_entry.rejected_reasons["missing_text"].rows == 1
    assert made.tally.counts.rejected == 0


def test_the_error_policy_names_the_first_conflict(tmp_path: Path) -> None:
    a = [(story(i), "negative", "A") for i in range(40)]
    b = [(story(i), "positive", "A") for i in range(7, 20)]
    first_file, second_file = write(tmp_path / "a.csv", FIRM, a), write(tmp_path / "b.csv", FIRM, b)
    made = make(tmp_path, f"data.sources=['{first_file}', '{second_file}']", "data.conflicts=error")
    where = r"e.g. a.csv record 9 \(negative\) and b.csv record 2 \(positive\)\. Correct"
    with pytest.raises(InputError, match=where):
        made.tally.check_settled()


rows_of_few_texts = st.lists(
    st.tuples(
        st.integers(0, 12),  # the text
        st.sampled_from(["", " again", "!"]),  # near to it, or equal but for a sign
        st.sampled_from([*LABELS, "mixed"]),
        st.integers(0, 3),  # the firm
    ),
    min_size=1,
    max_size=40,
)


@examples(25)
@given(
    rows=rows_of_few_texts,
    policy=st.sampled_from(["drop", "majority", "priority", "keep", "{prefer: [neutral]}"]),
    divided_by=st.sampled_from(["text", "firm"]),
    unseen=st.sets(st.integers(0, 12), max_size=2),
)
def test_rows_add_up_and_no_text_is_in_two_splits(
    rows: list[tuple[int, str, str, int]], policy: str, divided_by: str, unseen: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [(story(n, end), label, f"F{firm}") for n, end, label, firm in rows]
        sources = write(folder / "a.csv", FIRM, lines)
        benchmark = write(
            folder / "b.csv", ("Sentence",), [(story(n),) for n in unseen] or [("-",)]
        )
        made = make(
            folder,
            f"data.sources=['{sources}']",
            f"data.exclude=['{benchmark}']",
            f"data.conflicts={policy}",
            "data.max_rejected_fraction=1",
            *(["data.split.group_by=firm"] if divided_by == "firm" else []),
        )
    counts = made.tally.counts
    assert counts.rows_in == len(rows)
    assert counts.adds_up
    assert counts.kept == len(made.rows)
    stories: dict[int, set[str]] = {}
    for text, splits in made.splits.items():
        stories.setdefault(rows[[line[0] for line in lines].index(text)][0], set()).update(splits)
    assert all(len(splits) == 1 for splits in stories.values())
    assert not stories.keys() & unseen
    if divided_by == "firm" and policy != "keep":
        firms: dict[str, set[str]] = {}
        for row in made.rows:
            firms.setdefault(lines[row["row"] - 2][2], set()).add(row["split"])
        assert all(len(splits) == 1 for splits in firms.values())
