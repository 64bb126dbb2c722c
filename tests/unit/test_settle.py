"""The fate of every row, and the dataset version that is made of them. No Ray."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from finsent.data.clean import clean
from finsent.data.config import DataConfig, SplitConfig
from finsent.data.dataset import MANIFEST, DatasetVersion
from finsent.data.ingest import (
    _check_enough,
    _manifest,
    _partition,
    check_rejected,
    find_existing,
    version_id,
    write_partition,
)
from finsent.data.settle import SPLITS, Settled, settle, split_of
from finsent.data.sources import ROWS, SourceFile
from finsent.errors import InputError
from finsent.files import write_json
from finsent.labels import LABELS

NAMES = ["first.csv", "second.csv"]
Record = tuple[int, int, str, str]  # source, row, text, label


def table(records: list[Record], config: DataConfig) -> pa.Table:
    columns = zip(*records, strict=True) if records else [[]] * 4
    arrays = [pa.array(list(c), f.type) for c, f in zip(columns, ROWS, strict=False)]
    return clean(pa.table([*arrays, pa.nulls(len(records), pa.string())], schema=ROWS), config)


def settled(records: list[Record], **changed: Any) -> Settled:
    config = DataConfig(**changed)
    return settle(table(records, config), NAMES, config)


def kept(found: Settled) -> list[tuple[str, str, str, int]]:
    rows = [row for split in SPLITS for row in found.splits[split].to_pylist()]
    return sorted((r["text"], r["label"], r["source"], r["row"]) for r in rows)


def random_records(seed: int, count: int = 400) -> list[Record]:
    """Many duplicates, conflicts and bad rows."""
    rng = random.Random(seed)
    labels = [*LABELS, "Neutral", "bullish", ""]
    return [
        (rng.randrange(2), row, rng.choice(["", "Firm {} grew", "firm {}  GREW "]).format(
            rng.randrange(60)), rng.choices(labels, [30, 5, 2, 2, 1, 1])[0])
        for row in range(2, count + 2)
    ]  # fmt: skip


# --- duplicates and conflicts ---------------------------------------------------------------------


def test_the_first_of_equal_rows_is_kept_whatever_order_they_come_in() -> None:
    records = [
        (1, 2, "Profit rose", "positive"),
        (0, 9, "profit  ROSE", "positive"),
        (0, 4, "Profit Rose", "positive"),
        (1, 3, "Flat", "neutral"),
    ]
    for seed in range(5):
        random.Random(seed).shuffle(records)
        found = settled(records)
        assert kept(found) == [
            ("Flat", "neutral", "second.csv", 3),
            ("Profit Rose", "positive", "first.csv", 4),
        ]
        assert (found.duplicates, found.conflict_rows) == (2, 0)


P, N, G = "positive", "neutral", "negative"


@pytest.mark.parametrize(
    ("policy", "labels", "winner", "duplicates", "lost"),
    [
        ("drop", [P, P], (P, 2), 1, 0),
        ("drop", [P, G], None, 0, 2),
        ("drop", [P, P, P, G], None, 0, 4),
        ("error", [P, P, G], None, 0, 3),
        ("majority", [P, P], (P, 2), 1, 0),
        ("majority", [P, G], None, 0, 2),
        ("majority", [G, P, P], (P, 3), 1, 1),
        ("majority", [N, P, G, N, N], (N, 2), 2, 2),
        ("majority", [P, P, G, G], None, 0, 4),
        ("majority", [P, P, G, G, N], None, 0, 5),
        ("majority", [P, G, N], None, 0, 3),
    ],
)
def test_conflict_policies(
    policy: str, labels: list[str], winner: tuple[str, int] | None, duplicates: int, lost: int
) -> None:
    records = [(0, row, "Profit rose", label) for row, label in enumerate(labels, start=2)]
    records.append((0, 99, "Flat", N))
    found = settled(records, conflicts=policy)
    wanted = [("Profit rose", winner[0], "first.csv", winner[1])] if winner else []
    assert kept(found) == [("Flat", N, "first.csv", 99), *wanted]
    assert (found.duplicates, found.conflict_rows) == (duplicates, lost)
    decision = f"kept as {winner[0]}" if winner else "dropped"
    assert [(c["row"], c["label"], c["decision"]) for c in found.conflicts.to_pylist()] == [
        (row, label, decision) for row, label in enumerate(labels, start=2) if len(set(labels)) > 1
    ]


def test_rejected_rows_come_with_reason_and_raw_form_and_never_outvote() -> None:
    records = [
        (0, 3, "Profit rose", "bullish"),
        (0, 2, " ", "positive"),
        (1, 2, "Profit rose", "positive"),
    ]
    found = settled(records)
    assert kept(found) == [("Profit rose", "positive", "second.csv", 2)]
    assert [tuple(row.values()) for row in found.rejected.to_pylist()] == [
        ("first.csv", 2, "missing_text", " ", "positive"),
        ("first.csv", 3, "unknown_label", "Profit rose", "bullish"),
    ]


@pytest.mark.parametrize("records", [[], [(0, 2, "", "neutral")]])
def test_nothing_good_gives_empty_tables(records: list[Record]) -> None:
    found = settled(records)
    assert kept(found) == []
    assert (found.duplicates, found.conflict_rows) == (0, 0)
    assert (len(found.rejected), len(found.conflicts)) == (len(records), 0)
    full = settled([(0, 2, "a", "neutral"), (0, 3, "b", "neutral"), (0, 4, "b", "positive")])
    for split in SPLITS:
        assert found.splits[split].schema == full.splits[split].schema
    assert found.conflicts.schema == full.conflicts.schema
    assert found.rejected.schema == full.rejected.schema


@pytest.mark.parametrize("policy", ["drop", "majority", "error"])
@pytest.mark.parametrize("seed", range(4))
def test_every_row_is_in_exactly_one_count(policy: str, seed: int) -> None:
    records = random_records(seed)
    found = settled(records, conflicts=policy)
    rows = kept(found)
    assert len(rows) + len(found.rejected) + found.duplicates + found.conflict_rows == len(records)
    keys = [key for split in SPLITS for key in found.splits[split]["key"].to_pylist()]
    assert len(set(keys)) == len(keys) == len(rows)  # no text twice, and none on two sides
    good = [r for r in records if r[2] and r[3].lower() in LABELS]
    votes: dict[str, Counter[str]] = {}
    for _, _, text, label in good:
        votes.setdefault(" ".join(text.lower().split()), Counter())[label.lower()] += 1
    for text, label, _, _ in rows:
        count = votes[text.lower()]
        assert len(count) == 1 or (policy == "majority" and count.most_common(1)[0][0] == label)


# --- splits ---------------------------------------------------------------------------------------


def test_splits_have_their_shares() -> None:
    keys = [f"{i:032x}" for i in range(20_000)]
    shares = SplitConfig(train=0.7, validation=0.2, test=0.1)
    counts = Counter(split_of(keys, "finsent", shares))
    for name, share in shares.model_dump().items():
        assert counts[name] / len(keys) == pytest.approx(share, abs=0.01)


def test_a_salt_moves_rows_and_the_same_salt_does_not() -> None:
    keys = [f"{i:032x}" for i in range(2000)]
    first, again, other = (split_of(keys, salt, SplitConfig()) for salt in ("a", "a", "b"))
    assert first == again
    moved = sum(one != two for one, two in zip(first, other, strict=True)) / len(keys)
    assert moved == pytest.approx(1 - (0.8**2 + 0.1**2 + 0.1**2), abs=0.05)


def test_rows_stay_in_their_split_when_others_are_added() -> None:
    old: list[Record] = [(0, i, f"Firm {i} grew", "positive") for i in range(2, 300)]
    new: list[Record] = [(1, i, f"Unit {i} shrank", "negative") for i in range(2, 300)]

    def places(found: Settled) -> dict[str, str]:
        return {t: s for s in SPLITS for t in found.splits[s]["text"].to_pylist()}

    before, after = places(settled(old)), places(settled([*new, *old]))
    assert {text: after[text] for text in before} == before
    assert len(after) == 2 * len(before)
    assert set(before.values()) == set(SPLITS)


# --- the dataset version --------------------------------------------------------------------------


def publish(
    folder: Path, records: list[Record], partitions: int = 1, **changed: Any
) -> DatasetVersion:
    """What `ingest` does, without Ray in between."""
    config = DataConfig(**{"max_rejected_fraction": 1.0} | changed)
    files = [SourceFile(name, f"/x/{name}", 10, "0" * 64) for name in NAMES]
    folder.mkdir(parents=True)
    rows = table(records, config)
    part = _partition(rows["key"], partitions).to_pylist()
    stats = [
        write_partition(rows.filter(pa.array([p == i for p in part])), i, NAMES, config, folder)
        for i in range(partitions)
    ]
    stats = json.loads(json.dumps(stats))  # as they come from Ray's workers
    manifest = _manifest(config, files, folder.name, stats)
    _check_enough(manifest, config)
    write_json(folder / MANIFEST, manifest)
    return DatasetVersion.open(folder)


RECORDS: list[Record] = [
    *((i % 2, i, f"Firm {i} grew", LABELS[i % 3]) for i in range(2, 102)),
    (1, 102, "FIRM 2 grew", LABELS[2]),
    (1, 103, "Firm 3 grew", LABELS[1]),
    (1, 104, "", "neutral"),
    (1, 105, "What?", "bullish"),
    (1, 106, "Who?", "bearish"),
]


@pytest.mark.parametrize("partitions", [1, 3])
def test_manifest_counts_what_lies_in_the_files(tmp_path: Path, partitions: int) -> None:
    version = publish(tmp_path / "v", RECORDS, partitions)
    assert version.manifest["counts"] == {
        "rows_in": 105, "kept": 99, "rejected": 3, "duplicates": 1, "conflicts": 2
    }  # fmt: skip
    assert {s["source"]: (s["rows"], s["rejected"]) for s in version.manifest["inputs"]} == {
        "first.csv": (50, 0),
        "second.csv": (55, 3),
    }
    clean, reasons = (entry["rejected_reasons"] for entry in version.manifest["inputs"])
    assert clean == {}
    assert {reason: entry["rows"] for reason, entry in reasons.items()} == {
        "missing_text": 1,
        "unknown_label": 2,
    }
    assert reasons["missing_text"]["first"] == "record 104"
    assert version.manifest["conflict_example"] == "Firm 3 grew"
    texts: list[str] = []
    for split in SPLITS:
        rows = version.read(split)
        assert len(rows) == version.rows(split) > 0
        assert Counter(rows["label"].to_pylist()) == version.manifest["splits"][split]["labels"]
        assert version.read(split, ["text"]).column_names == ["text"]
        texts += rows["text"].to_pylist()
    assert sorted(texts) == sorted(f"Firm {i} grew" for i in range(2, 102) if i != 3)


def test_number_of_partitions_changes_no_row(tmp_path: Path) -> None:
    one, many = (publish(tmp_path / str(n), random_records(3), n) for n in (1, 5))
    for split in SPLITS:
        assert one.read(split).sort_by("key") == many.read(split).sort_by("key")
    assert one.manifest["counts"] == many.manifest["counts"]


def test_a_partition_written_again_is_the_same(tmp_path: Path) -> None:
    rows = table(RECORDS, DataConfig())
    first, again = (write_partition(rows, 4, NAMES, DataConfig(), tmp_path) for _ in range(2))
    assert first == again
    assert {path.name for path in tmp_path.rglob("*.parquet")} == {"part-00004.parquet"}
    alone = table(RECORDS[:1], DataConfig())
    files = [write_partition(alone, i, NAMES, DataConfig(), tmp_path)["files"] for i in (0, 1)]
    assert [len(found) for found in files] == [len(SPLITS) + 2, 1]  # the first has all schemas


def test_version_id_follows_bytes_names_and_settings_alone() -> None:
    file = SourceFile("a.csv", "/here/a.csv", 10, "0" * 64)
    base = version_id([file], DataConfig())
    elsewhere = SourceFile("a.csv", "/there/a.csv", 10, "0" * 64)
    assert version_id([elsewhere], DataConfig(name="other", sources=["/there"])) == base
    assert len(base) == 12
    others = [
        version_id([SourceFile("b.csv", file.path, 10, "0" * 64)], DataConfig()),
        version_id([SourceFile("a.csv", file.path, 10, "1" * 64)], DataConfig()),
        version_id([file, file], DataConfig()),
        version_id([file], DataConfig(salt="x")),
        version_id([file], DataConfig(conflicts="majority")),
        version_id([file], DataConfig(max_rejected_fraction=0.5)),
    ]
    assert len({base, *others}) == 1 + len(others)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "changed", "parts"),
    [
        (
            RECORDS,
            {"max_rejected_fraction": 0.01},
            ["data.sources: 'second.csv'", "3 of 55 rows", "data.max_rejected_fraction=0.01",
             "unknown_label: 2 (first: record 105, 'bullish')", "missing_text: 1",
             "negative, neutral, positive", "or raise the limit"],
        ),
        (
            [r for r in RECORDS if r[0] == 0],
            {},
            ["data.sources: 'second.csv'", "header and no rows", "add labelled rows"],
        ),
        (
            RECORDS,
            {"conflicts": "error"},
            ["data.conflicts='error'", "2 rows", "'Firm 3 grew'", "data.conflicts=drop"],
        ),
        (
            [(0, 2, "Up", "positive"), (1, 2, "Down", "negative")],
            {},
            ["data.split.", "the split is empty", "2 distinct rows", "add rows or raise the share"],
        ),
    ],
)  # fmt: skip
def test_unusable_data_is_refused_with_the_remedy(
    tmp_path: Path, records: list[Record], changed: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        publish(tmp_path / "v", records, **changed)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(("rejected", "refused"), [(0, False), (10, False), (11, True)])
def test_the_limit_itself_is_allowed(rejected: int, refused: bool) -> None:
    def check() -> None:
        found = {"missing_text": {"rows": rejected, "first": "record 2"}}
        check_rejected("a.csv", 100, found, DataConfig(max_rejected_fraction=0.1))

    if refused:
        with pytest.raises(InputError, match=r"'a\.csv': 11 of 100 rows"):
            check()
    else:
        check()


# --- opening --------------------------------------------------------------------------------------


def test_find_by_id_by_directory_and_the_newest(tmp_path: Path) -> None:
    versions = [publish(tmp_path / name, RECORDS) for name in ("bbb", "ccc", "aaa")]
    for age, version in enumerate(versions):
        os.utime(version.path / MANIFEST, (1000 + age, 1000 + age))
    (tmp_path / ".staging-x").mkdir()
    (tmp_path / ".staging-x" / MANIFEST).write_text("{}")
    for reference, name in [("latest", "aaa"), ("ccc", "ccc"), (str(tmp_path / "bbb"), "bbb")]:
        assert DatasetVersion.find(reference, tmp_path, "train.dataset").version == name
    with pytest.raises(InputError) as caught:
        DatasetVersion.find("ddd", tmp_path, "train.dataset")
    assert str(caught.value).startswith("train.dataset='ddd': no such dataset version")
    assert str(caught.value).endswith(f"{str(tmp_path)!r}: aaa, bbb, ccc")


def test_find_in_an_empty_place_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.dataset='latest': .*ray_jobs\.ingest"):
        DatasetVersion.find("latest", tmp_path / "none", "train.dataset")
    with pytest.raises(InputError, match=r"train\.dataset='x': .*known in .*: none"):
        DatasetVersion.find("x", tmp_path / "none", "train.dataset")


def test_existing_version_is_found_without_ray(tmp_path: Path) -> None:
    files = [SourceFile(name, f"/x/{name}", 10, "0" * 64) for name in NAMES]
    config = DataConfig(max_rejected_fraction=1.0)
    assert find_existing(config, tmp_path, files) is None
    publish(tmp_path / version_id(files, config), RECORDS)
    found = find_existing(config, tmp_path, files)
    assert found is not None
    assert found.version == version_id(files, config)


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("train/part-00000.parquet", b"PAR1", "missing or changed"),
        ("test/part-00000.parquet", None, "missing or changed"),
        (MANIFEST, None, "no such file"),
        (MANIFEST, b'{"schema_version": 1,', "not valid JSON"),
        (MANIFEST, b"[]", "ingest again"),
        (MANIFEST, b'{"schema_version": 2, "splits": {}}', "schema 1; ingest again"),
        (MANIFEST, b'{"schema_version": 1, "labels": ["up"], "splits": {}}', "labels are ['up']"),
        (MANIFEST, b'{"schema_version": 1, "splits": {}}', "ingest again"),
    ],
)
def test_damage_is_seen_and_named(
    tmp_path: Path, file: str, content: bytes | None, part: str
) -> None:
    path = publish(tmp_path / "v", RECORDS).path / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        DatasetVersion.open(tmp_path / "v")
    assert str(path) in str(caught.value)
    assert part in str(caught.value)
