"""Ingest on a local Ray."""

from __future__ import annotations

import csv
import gzip
import json
import random
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray.data
from ray.data._internal.block_batching.util import iter_threaded

import finsent.data.ingest.ingest as ingest_module
from benchmarks import synthetic
from finsent.adapters.ray_core import join_reader_threads
from finsent.config import load
from finsent.data.ingest.ingest import ingest
from finsent.data.rows.split import SPLITS
from finsent.data.sources.files import find_sources
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.manifest import FateCounts, LabelNoise
from finsent.errors import ConfigError, InputError, UserError
from finsent.signals import find_cause
from ray_jobs import ingest as ingest_job
from ray_jobs._cli import Call
from ray_jobs._settings import JobSettings

LABELS = ("positive", "neutral", "negative")


def write_csv(path: Path, rows: list[tuple[str, str]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream).writerows([("Sentence", "Sentiment"), *rows])
    return path


def good_rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [(f"Unit {i} sold {i * 7} pumps", LABELS[i % 3]) for i in range(start, start + count)]


# Rows that differ in two figures: near-duplicates have tests of their own.
FAR = ("data.near_duplicates.enabled=false", "data.label_noise.enabled=false")


def make(folder: Path, sources: list[Path | str], *overrides: str) -> DatasetVersion:
    listed = ", ".join(str(source) for source in sources)
    config = load(JobSettings, [], [f"data.sources=[{listed}]", *FAR, *overrides]).data
    return ingest(config, folder, find_sources(config, folder / "hubs"))


def content(version: DatasetVersion) -> dict[str, list[dict[str, object]]]:
    return {s: version.read(s).sort_by("key").to_pylist() for s in SPLITS}


def test_every_row_has_one_fate(tmp_path: Path) -> None:
    first = write_csv(
        tmp_path / "first.csv",
        [
            *good_rows(300),
            ("Unit 5  sold\u200b 35 pumps", "negative"),  # the same text as row 5, same label
            ("UNIT 7 SOLD 49 PUMPS", "positive"),  # in conflict with row 7
            ("", "neutral"),
            ("What is this?", "bullish"),
        ],
    )
    second = write_csv(tmp_path / "second.csv", [*good_rows(100, start=250), ("No label here", "")])
    version = make(tmp_path / "out", [first, second], "data.max_rejected_fraction=0.02")
    counts = version.manifest.counts
    assert counts == FateCounts(
        rows_in=405, kept=349, rejected=3, duplicates=51, conflicts=2, excluded=0
    )
    rejected = pq.read_table(version.path / "rejected.parquet").to_pylist()
    assert [(r["source"], r["row"], r["reason"]) for r in rejected] == [
        ("first.csv", 304, "missing_text"),
        ("first.csv", 305, "unknown_label"),
        ("second.csv", 102, "missing_label"),
    ]
    conflicts = pq.read_table(version.path / "conflicts.parquet").to_pylist()
    assert {(c["row"], c["label"], c["decision"]) for c in conflicts} == {
        (9, "neutral", "dropped"),
        (303, "positive", "dropped"),
    }
    kept = [row for rows in content(version).values() for row in rows]
    assert len({row["key"] for row in kept}) == 349
    assert {row["source"] for row in kept if row["raw_text"] == "Unit 260 sold 1820 pumps"} == {
        "first.csv"  # the first of two equal rows is kept
    }
    version.verify()


def test_files_as_other_programs_write_them_become_one_version(tmp_path: Path) -> None:
    rows = good_rows(240)
    header, spark, tool = (tmp_path / name for name in ("a.csv", "spark.csv", "tool.json"))
    header.write_text("".join(f"{label},{text}\n" for text, label in rows[:60]))
    quoted = "".join(f'"{text}, \\"they\\" said",{label}\n' for text, label in rows[60:120])
    spark.write_text(f"Sentence,Sentiment\n{quoted}")
    answers = ("accept", "reject")
    records = [
        {"Sentence": text, "Sentiment": [label], "answer": answers[n % 2]}
        for n, (text, label) in enumerate(rows[120:180])
    ]
    tool.write_text(json.dumps(records, indent=1))
    for text, label in rows[180:]:
        folder = tmp_path / "hive" / f"Sentiment={label}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "part.csv.gz").open("ab") as stream:
            first = b"Sentence\n" * (stream.tell() == 0)
            stream.write(gzip.compress(first + f"{text}\n".encode()))
    version = make(
        tmp_path / "out",
        [
            f"{{uri: {header}, header: none, text: 2, label: 1}}",
            f"{{uri: {spark}, escape: \\}}",
            f"{{uri: {tool}, where: {{answer: accept}}}}",
            tmp_path / "hive",
        ],
    )
    assert version.manifest.counts.kept == 210
    assert version.manifest.counts.rejected == 30
    found = {row["raw_text"]: row["label"] for r in content(version).values() for row in r}
    wanted = dict([*rows[:60], *rows[120:180:2], *rows[180:]])
    wanted |= {f'{text}, "they" said': label for text, label in rows[60:120]}
    assert found == wanted
    again = make(tmp_path / "out", [f"{{uri: {header}, header: none, text: 2, label: 1}}"])
    assert again.version != version.version


def test_same_input_and_config_give_the_same_version_and_reuse_it(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", good_rows(60))
    first = make(tmp_path / "a", [source])
    written = {p: p.stat().st_mtime_ns for p in first.path.rglob("*.parquet")}
    other = make(tmp_path / "a", [source], "data.salt=other")
    assert other.version != first.version
    again = make(tmp_path / "a", [source])
    assert again.path == first.path
    assert {p: p.stat().st_mtime_ns for p in again.path.rglob("*.parquet")} == written
    # The newest is the one that was asked for last, made anew or not.
    assert DatasetVersion.find("latest", tmp_path / "a", "train.dataset").path == first.path

    moved = tmp_path / "elsewhere"
    moved.mkdir()
    elsewhere = make(tmp_path / "b", [source.rename(moved / "rows.csv")])
    assert elsewhere.version == first.version
    assert [f.sha256 for f in elsewhere.manifest.splits["train"].files] == [
        f.sha256 for f in first.manifest.splits["train"].files
    ]


@pytest.mark.cost(8, "three ingests")
@pytest.mark.parametrize("near", ["true", "false"])
def test_the_number_of_partitions_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: str
) -> None:
    rows = good_rows(200) + good_rows(40) + [("UNIT 3 SOLD 21 PUMPS", "negative")]
    source = write_csv(tmp_path / "rows.csv", rows)
    one = make(tmp_path / "one", [source], f"data.near_duplicates.enabled={near}")
    monkeypatch.setattr(ingest_module, "_BYTES_PER_PARTITION", 3000)
    many = make(tmp_path / "many", [source], f"data.near_duplicates.enabled={near}")
    assert len(many.files("train")) > 1
    assert content(many) == content(one)
    assert many.manifest.counts == one.manifest.counts


def test_adding_rows_never_moves_a_row_to_another_split(tmp_path: Path) -> None:
    before = content(make(tmp_path / "a", [write_csv(tmp_path / "a.csv", good_rows(200))]))
    after = content(make(tmp_path / "b", [write_csv(tmp_path / "b.csv", good_rows(300))]))
    for split in SPLITS:
        assert {r["key"] for r in before[split]} <= {r["key"] for r in after[split]}


@pytest.mark.parametrize(
    ("rows", "overrides", "words"),
    [
        (
            [*good_rows(50), ("Odd", "bullish"), ("Odder", "bearish")],
            [],
            ["2 of 52 rows", "unknown_label: 2", "record 52, 'bullish'", "max_rejected_fraction"],
        ),
        (
            [*good_rows(50), ("UNIT 4 SOLD 28 PUMPS", "negative")],
            ["data.conflicts=error"],
            ["data.conflicts='error'", "several labels", "majority"],
        ),
        ([("Only one", "neutral")], [], ["split is empty", "data.split."]),
        ([], [], ["no rows"]),
        (
            [*good_rows(50), ("x" * (1 << 20), "neutral")],
            [],
            ["1 of 51 rows", "text_too_long", "record 52"],
        ),
    ],
    ids=["unknown labels", "conflicts", "too few", "header only", "1 MB line"],
)
def test_bad_rows_are_named_and_nothing_is_published(
    tmp_path: Path, rows: list[tuple[str, str]], overrides: list[str], words: list[str]
) -> None:
    source = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(InputError) as caught:
        make(tmp_path / "out", [source], *overrides)
    for word in words:
        assert word in str(caught.value)
    assert not [*(tmp_path / "out").iterdir()]


def test_majority_keeps_the_label_of_most_rows(tmp_path: Path) -> None:
    text = "unit 4 sold 28 pumps"
    rows = [*good_rows(90), (text, "neutral"), (text.upper(), "negative")]
    version = make(
        tmp_path / "out", [write_csv(tmp_path / "rows.csv", rows)], "data.conflicts=majority"
    )
    kept = [r for rows in content(version).values() for r in rows]
    assert [r["label"] for r in kept if str(r["text"]).lower() == text] == ["neutral"]
    assert version.manifest.counts.duplicates == 1
    assert version.manifest.counts.conflicts == 1


def test_an_error_in_a_late_block_reaches_the_user_in_one_line(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    lines = "".join(f"Plant {i} in Lyon makes valves,neutral\n" for i in range(60_000))
    source.write_text(f'Sentence,Sentiment\n{lines}"Caf\xe9 chain grows,positive\nFlat,neutral\n')
    with pytest.raises(Exception) as caught:
        make(tmp_path / "out", [source])
    cause = find_cause(caught.value, UserError)
    assert cause is not None
    assert str(source) in str(cause)
    assert "a quote that opens in record 60002 is not closed" in str(cause)
    assert not [*(tmp_path / "out").iterdir()]


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


def story(number: int, end: str) -> str:
    rng = random.Random(number)
    words = ["".join(rng.choices("aeiounrstlm", k=6)) for _ in range(20)]
    return " ".join(words) + end


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


def test_synthetic_rows_have_the_fates_that_they_were_made_for(tmp_path: Path) -> None:
    wanted = synthetic.expected(20_000, seed=4)
    synthetic.write_rows(tmp_path / "rows", rows=20_000, files=3, seed=4)
    version = make(tmp_path / "out", [tmp_path / "rows"])
    assert version.manifest.counts == FateCounts(
        rows_in=20_000,
        kept=wanted.kept,
        rejected=wanted.unknown_label + wanted.missing_text,
        duplicates=wanted.duplicates,
        conflicts=wanted.conflicts,
        excluded=0,
    )
    assert version.manifest.details.conflict_texts == wanted.conflict_texts


def test_label_noise_and_report_are_part_of_a_version(tmp_path: Path) -> None:
    version = make(tmp_path / "out", ["sample"], "data.label_noise.enabled=true")
    noise = version.manifest.label_noise
    suspects = pq.read_table(version.path / "label_noise.parquet")
    assert isinstance(noise, LabelNoise)
    assert noise.rows == version.manifest.counts.kept
    assert noise.issues == len(suspects) > 0
    page = (version.path / "report.html").read_text()
    assert version.version in page
    assert len([*(version.path / "pictures").glob("*.png")]) == 5
    listed = {file.path for file in version.manifest.files}
    assert {"report.html", "label_noise.parquet", "pictures/fates.png"} <= listed
    (version.path / "label_noise.parquet").write_bytes(b"changed")
    with pytest.raises(InputError, match=r"label_noise\.parquet.*changed"):
        DatasetVersion.open(version.path)


def test_conflicts_resolve_to_the_better_source(tmp_path: Path, shared_data: Path) -> None:
    """Sentences that Kaggle's data set has as negative and neutral are negative in PhraseBank."""
    phrasebank = f"{{uri: {shared_data}/phrasebank/Sentences_50Agree.txt, priority: 1}}"
    kaggle = shared_data / "financial-sentiment.csv"
    version = make(tmp_path / "out", [kaggle, phrasebank], "data.conflicts=priority")
    rows = pq.read_table(version.path / "conflicts.parquet").to_pylist()
    labels: dict[str, set[str]] = {}
    for row in rows:
        if row["source"] == kaggle.name:
            labels.setdefault(row["key"], set()).add(row["label"])
    known = {row["key"] for row in rows if row["source"].startswith("Sentences")}
    both = {key for key, found in labels.items() if found == {"negative", "neutral"}} & known
    assert len(both) > 300
    kept = {str(r["key"]): r["label"] for rows in content(version).values() for r in rows}
    assert {kept[key] for key in both} == {"negative"}


def test_diff_shows_what_changed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [(story(number, ""), LABELS[number % 3]) for number in range(80)]
    root = tmp_path / "artifacts"
    folder = root / "datasets" / "financial-sentiment"
    a = make(folder, [write_csv(tmp_path / "a.csv", rows)])
    changed = [(rows[0][0], LABELS[1]), *rows[2:], (story(900, ""), "neutral")]
    b = make(folder, [write_csv(tmp_path / "b.csv", changed)], "data.salt=finsent")
    settings = load(JobSettings, [], [f"storage.root={root}"])
    result = ingest_job.compare(Call(settings, tmp_path, ["diff", a.version, str(b.path)]))
    assert {
        kind: getattr(result.rows, kind).rows for kind in ("added", "removed", "relabeled", "moved")
    } == {
        "added": 1,
        "removed": 1,
        "relabeled": 1,
        "moved": 0,
    }
    shown = capfd.readouterr().err
    assert "relabeled" in shown
    with pytest.raises(ConfigError, match="diff VERSION_A VERSION_B"):
        ingest_job.run(Call(settings, tmp_path, ["diff", a.version]))


def test_readers_have_ended_before_ray_is_shut_down() -> None:
    def readers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "iter_threaded"]

    for _ in ray.data.range(50, override_num_blocks=50).iter_rows():
        break
    iteration = iter_threaded(iter(range(9)), lambda numbers: numbers)
    next(iteration)
    assert readers()  # by the name that Ray gives them
    iteration.close()
    join_reader_threads()
    assert not readers()
