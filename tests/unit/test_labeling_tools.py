"""Exports of labeling tools, and labels as people write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from finsent.config import load
from finsent.data.config import DataConfig, SourceConfig
from finsent.data.labeled import read_labeled
from finsent.data.sources.files import find_sources
from finsent.data.versions.manifest import RejectedRows
from finsent.data.versions.warnings import version_warnings
from finsent.errors import ConfigError, InputError
from finsent.settings import Settings
from tests.unit.source_files import write
from tests.unit.test_stages import make

ROSE_AND_FELL = {"Alpha rose": "positive", "Beta fell": "negative"}


def labels(path: Path, config: dict[str, Any] | None = None, **settings: Any) -> dict[str, str]:
    """Return the label of each text that remains."""
    source = SourceConfig(**{"uri": str(path), "text": "text", "label": "label", **settings})
    data_config = DataConfig(sources=[source], **(config or {}))
    table = read_labeled(find_sources(data_config, path.parent / "hubs"), data_config)
    return dict(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))


def problem(path: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        labels(path, **settings)
    return str(caught.value)


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# --- what annotators refused ----------------------------------------------------------------------

PRODIGY = lines(
    {"text": "Alpha rose", "label": "POSITIVE", "answer": "accept"},
    {"text": "Beta fell", "label": "POSITIVE", "answer": "reject"},
    {"text": "Gamma is unclear", "label": "NEGATIVE", "answer": "ignore"},
    {"text": "Delta fell", "label": "NEGATIVE", "answer": "Accept"},
)


def test_where_leaves_out_what_the_annotator_refused(tmp_path: Path) -> None:
    path = write(tmp_path, PRODIGY, "prodigy.jsonl")
    accepted = {"Alpha rose": "positive", "Delta fell": "negative"}
    assert labels(path, where={"answer": "accept"}) == accepted
    both = labels(path, where={"answer": ["accept", "ignore"]})
    assert both == {**accepted, "Gamma is unclear": "negative"}


def test_what_the_annotator_refused_is_never_taken_unnoticed(tmp_path: Path) -> None:
    path = write(tmp_path, PRODIGY, "prodigy.jsonl")
    text = problem(path)
    assert "2 of 4 rows are unusable" in text
    assert "refused_label: 2 (first: record 2, answer is reject)" in text
    assert "where: {answer: accept} leaves such rows out" in text


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet", "feather", "tsv"])
def test_where_holds_in_every_format(tmp_path: Path, suffix: str) -> None:
    records: list[dict[str, Any]] = [
        {"text": "Alpha rose", "label": "positive", "gold": True},
        {"text": "Beta fell", "label": "negative", "gold": True},
        {"text": "Beta fell", "label": "neutral", "gold": False},
        {"text": "Delta grew", "label": "positive", "gold": None},
    ]
    path, table = tmp_path / f"a.{suffix}", pa.Table.from_pylist(records)
    if suffix == "parquet":
        pq.write_table(table, path)
    elif suffix == "feather":
        pyarrow.feather.write_feather(table, str(path))
    elif suffix in ("csv", "tsv"):
        sign = "," if suffix == "csv" else "\t"
        cells = [["" if v is None else str(v) for v in record.values()] for record in records]
        path.write_text("\n".join(map(sign.join, [["text", "label", "gold"], *cells])))
    else:
        path.write_text(json.dumps(records) if suffix == "json" else lines(*records))
    assert labels(path, where={"gold": True}) == ROSE_AND_FELL


def test_what_is_left_out_is_counted_and_is_no_bad_row(tmp_path: Path) -> None:
    rows = [
        {"Sentence": f"Unit {n} of firm {n * 7919 % 1000} grew", "Sentiment": "up", "ok": n % 3}
        for n in range(90)
    ]
    rows += [{"Sentence": f"Mixed news {n}", "Sentiment": "Mixed", "ok": 1} for n in range(9)]
    path = write(tmp_path, lines(*rows), "a.jsonl")
    made = make(
        tmp_path,
        f"data.sources=[{{uri: '{path}', where: {{ok: [1, 2]}}, drop_labels: mixed, "
        "label_map: {up: positive}}]",
    )
    manifest = made.tally.manifest("v", None)
    assert manifest.counts.rows_in == 99
    assert manifest.counts.rejected == 39
    assert manifest.inputs[0].rejected_reasons == {
        "left_out": RejectedRows(rows=30, first="record 1, ok is 0"),
        "dropped_label": RejectedRows(rows=9, first="record 91"),
    }
    assert not any("were rejected" in warning for warning in version_warnings(manifest))


def test_few_swallowed_and_damaged_texts_are_noted_on_the_version(tmp_path: Path) -> None:
    words = ["alpha", "beta", "gamma", "delta", "eta", "iota", "kappa", "omega", "theta", "zeta"]
    lines_ = [
        f"{words[n % 10]} {words[n // 10 % 10]} {words[n // 100]} grew {n * 7919},positive"
        for n in range(300)
    ]
    lines_[7], lines_[150] = f'"{lines_[7]}', 'the end",positive'
    lines_[200] = "Moon \ufffd,positive"
    path = write(tmp_path, "Sentence,Sentiment\n" + "\n".join(lines_), "a.csv")
    made = make(tmp_path, f"data.sources=['{path}']")
    manifest = made.tally.manifest("v", None)
    assert manifest.counts.rejected == 1
    notes = list(version_warnings(manifest))
    assert any("merged several records into one, in 1 texts (first: record 9" in n for n in notes)
    assert any("1 texts have U+FFFD" in note for note in notes)


def test_settings_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, PRODIGY, "prodigy.jsonl")
    text = problem(path, where={"answer": "yes"})
    assert (
        "where and drop_labels leave out all of its 4 rows (left_out: 4 (first: record 1," in text
    )
    assert "where='verdict': no such column" in problem(path, where={"verdict": "accept"})


# --- labels in lists and objects ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (["positive"], "positive"),
        (["positive", "positive"], "positive"),
        ({"choices": ["Positive"]}, "positive"),
        ('{"choices": ["Positive"]}', "positive"),
        ('["positive"]', "positive"),
        ("['Positive']", "positive"),
        ("{'choices': ['Positive']}", "positive"),
        ("['positive', 'negative']", "unknown_label: 1"),
        ("[positive]", "unknown_label: 1"),
        ("[" * 3000, "unknown_label: 1"),
        (["positive", "negative"], "malformed_row: 1 (first: record 1, several labels)"),
        ([], "missing_label: 1"),
        ({"a": 1}, "a list or object where a text or number belongs"),
        ('["positive", "negative"]', "unknown_label: 1"),
        ("positive#negative", "unknown_label: 1"),
    ],
)
def test_a_label_may_be_a_list_of_one(tmp_path: Path, label: Any, expected: str) -> None:
    path = write(tmp_path, lines({"text": "Alpha rose", "label": label}), "a.jsonl")
    if ":" in expected or " " in expected:
        assert expected in problem(path)
    else:
        assert labels(path) == {"Alpha rose": expected}


def test_label_studio_writes_json_into_cells_of_csv(tmp_path: Path) -> None:
    body = 'text,label\nAlpha rose,"{""choices"": [""Positive""]}"\nBeta fell,Negative\n'
    assert labels(write(tmp_path, body)) == ROSE_AND_FELL


def test_nested_keys_are_named_with_dots(tmp_path: Path) -> None:
    """As Label Studio exports JSON."""
    tasks = [
        {
            "id": number,
            "data": {"text": text},
            "annotations": [{"result": [{"value": {"choices": [label.title()]}}]}],
        }
        for number, (text, label) in enumerate(ROSE_AND_FELL.items())
    ]
    path = write(tmp_path, json.dumps(tasks, indent=1), "project.json")
    nested: dict[str, Any] = {"text": "data.text", "label": "annotations.0.result.0.value.choices"}
    assert labels(path, **nested) == ROSE_AND_FELL
    text = problem(path)
    assert "its columns are 'id', 'data', 'annotations', 'data.text'" in text


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_lists_of_one_in_typed_files(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"text": [*ROSE_AND_FELL], "label": [["positive"], ["negative"]]})
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        pyarrow.feather.write_feather(table, str(path))
    assert labels(path) == ROSE_AND_FELL


# --- names of classes -----------------------------------------------------------------------------


@pytest.mark.cost(3, "imports datasets")
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_hugging_face_keeps_the_names_of_classes_in_the_schema(tmp_path: Path, suffix: str) -> None:
    import datasets

    names = datasets.ClassLabel(names=["Bearish", "Bullish", "Neutral"])
    texts = [*ROSE_AND_FELL, "Gamma met", "Unlabeled"]
    data = datasets.Dataset.from_dict(
        {"text": texts, "label": [1, 0, 2, -1]},
        features=datasets.Features({"text": datasets.Value("string"), "label": names}),
    )
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        data.to_parquet(str(path))
    else:
        data.save_to_disk(str(tmp_path / "saved"))
        (tmp_path / "saved" / "data-00000-of-00001.arrow").rename(path)
    labels_by_text = labels(
        path,
        label_map={"bearish": "negative", "bullish": "positive"},
        config={"max_rejected_fraction": 0.5},
    )
    assert labels_by_text == {**ROSE_AND_FELL, "Gamma met": "neutral"}


@pytest.mark.parametrize("words", ["yes no", "Yes No", "on off", "true false", "TRUE False"])
@pytest.mark.parametrize("quoted", [True, False])
def test_yes_and_no_may_be_labels(tmp_path: Path, words: str, quoted: bool) -> None:
    yes, no = words.split()
    path = write(tmp_path, f"text,label\nAlpha rose,{yes}\nBeta fell,{no}\nGamma met,neutral\n")
    mark = '"' if quoted else ""
    settings = write(
        tmp_path,
        f"data:\n  sources:\n    - uri: {path}\n      text: text\n      label: label\n"
        f"      label_map: {{{mark}{yes}{mark}: positive, {mark}{no}{mark}: negative}}\n",
        "c.yaml",
    )
    [source] = load(Settings, [settings], []).data.sources
    assert labels(path, label_map=source.label_map) == {**ROSE_AND_FELL, "Gamma met": "neutral"}


def test_a_quoted_yes_is_not_true() -> None:
    source = SourceConfig(uri="a", label_map={"yes": "positive", True: "negative"})
    from finsent.data.rows.clean import label_ids

    ids = label_ids(pa.chunked_array([["yes", "true", "on"]]), source)
    assert ids.to_pylist() == [2, 0, 0]


# --- YAML -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "column"),
    [
        ("train:\n  epochs: 1\n  epochs: 2\n", "duplicate key epochs at line 2 and line 3"),
        (
            "data:\n  name: a\ntrain:\n  epochs: 1\ndata:\n  name: b\n",
            "duplicate key data at line 1 and line 5",
        ),
        (
            "data:\n sources:\n - uri: a\n   label_map:\n    yes: positive\n    true: negative\n",
            "duplicate key true at line 5 and line 6",
        ),
        (
            "data: {sources: [{uri: a, label_map: {up: positive, up: negative}}]}",
            "duplicate key up at",
        ),
    ],
)
def test_a_key_that_stands_twice_in_yaml_is_an_error(
    tmp_path: Path, content: str, column: str
) -> None:
    path = write(tmp_path, content, "c.yaml")
    with pytest.raises(ConfigError) as caught:
        load(Settings, [path], [])
    assert column in str(caught.value)
    assert str(path) in str(caught.value)
    assert "Leave one of them out" in str(caught.value)


def test_a_key_that_stands_twice_in_an_override_is_an_error() -> None:
    override = "data.sources=[{uri: a, label_map: {yes: positive, yes: negative}}]"
    with pytest.raises(ConfigError, match=r"argument 'data\.sources=.*duplicate key yes"):
        load(Settings, [], [override])


def test_one_key_in_two_sections_is_none(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {name: a}\nrun: {name: b}\n", "c.yaml")
    assert load(Settings, [path], []).data.name == "a"
