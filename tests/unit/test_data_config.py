"""The section `data`: sources in two spellings, conflict policies, time splits, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finsent.config import load, to_yaml
from finsent.data.config import DataConfig, PreferPolicy, SourceConfig, SplitConfig
from finsent.errors import ConfigError


def config(*overrides: str) -> DataConfig:
    return load(DataConfig, [], list(overrides))


def problem(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config(*overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- sources --------------------------------------------------------------------------------------


def test_the_sample_is_the_default_source() -> None:
    assert config().sources == [SourceConfig(uri="sample")]
    assert config().exclude == []


def test_a_text_and_a_mapping_are_the_same_source() -> None:
    plain = config("sources=[a.csv]", "exclude=[b.csv]")
    mapped = config("sources=[{uri: a.csv}]", "exclude=[{uri: b.csv}]")
    assert plain == mapped
    assert (plain.sources[0].uri, plain.exclude[0].uri) == ("a.csv", "b.csv")


FULL: dict[str, Any] = {
    "uri": "s3://bucket/news-*.csv.gz",
    "format": "csv",
    "name": "news",
    "text": "headline",
    "label": "mood",
    "label_map": {"Bullish": "positive", 0: "negative", True: "positive", -1.5: "neutral"},
    "encoding": "Windows-1252",
    "weight": 2,
    "priority": -1,
}


def test_a_file_may_set_all_keys_of_a_source(tmp_path: Path) -> None:
    lines = [f"    {key}: {value}" for key, value in FULL.items() if key != "uri"]
    file = tmp_path / "data.yaml"
    text = "\n".join(["sources:", "  - sample", f"  - uri: {FULL['uri']}", *lines, ""])
    file.write_text(text, encoding="utf-8")
    loaded = load(DataConfig, [file], [])
    assert loaded.sources == [SourceConfig(uri="sample"), SourceConfig(**FULL)]
    source = loaded.sources[1]
    assert source.label_map == {
        "bullish": "positive",
        "0": "negative",
        "true": "positive",
        "-1.5": "neutral",
    }
    assert (source.encoding, source.weight, source.priority) == ("cp1252", 2.0, -1)


def test_printed_settings_can_be_loaded(tmp_path: Path) -> None:
    given = config(
        "sources=[a.csv, {uri: b.csv, thresholds: [-0.1, 0.1], weight: 0.5}]",
        "exclude=[{uri: c.jsonl, label_map: {0: negative}}]",
        "conflicts={prefer: [negative, positive]}",
        "split.time={column: day, validation_from: 2024-01-01, test_from: 2024-07-01}",
    )
    file = tmp_path / "data.yaml"
    file.write_text(to_yaml(given), encoding="utf-8")
    assert load(DataConfig, [file], []) == given


@pytest.mark.parametrize(
    ("name", "codec"),
    [("UTF8", "utf-8"), ("latin1", "iso8859-1"), ("u16", "utf-16"), ("auto", "auto")],
)
def test_an_encoding_has_one_spelling(name: str, codec: str) -> None:
    assert config(f"encoding={name}").encoding == codec
    assert config(f"sources=[{{uri: a.csv, encoding: {name}}}]").sources[0].encoding == codec


@pytest.mark.parametrize("bounds", [(-0.1, 0.1), (0, 0), (float("-inf"), 3)])
def test_ordered_thresholds_are_accepted(bounds: tuple[float, float]) -> None:
    assert SourceConfig(uri="a.csv", thresholds=bounds).thresholds == bounds


@pytest.mark.parametrize(
    ("sources", "phrases"),
    [
        ("a.csv", ["sources='a.csv'", "list", "Write sources='[\"a.csv\"]'."]),
        ("[]", ["sources=[]", "at least 1"]),
        ("[5]", ["sources.0: 5 is not a source", "a path or URI", "mapping with `uri`"]),
        ("[a.csv, '']", ["sources.1.uri=''", "at least 1 character"]),
        ("[{name: news}]", ["sources.0.uri: is missing", "path, glob, directory", "hf://"]),
        ("[{uri: a, txt: b}]", ["sources.0.txt: unknown key", "Did you mean 'sources[].text'?"]),
        ("[{uri: a, format: xlsx}]", ["sources.0.format='xlsx'", "'csv'", "'phrasebank'"]),
        ("[{uri: a, encoding: utf9}]", ["sources.0.encoding: 'utf9'", "cp1252", "auto"]),
        ("[{uri: a, encoding: hex}]", ["sources.0.encoding: 'hex'", "not an encoding"]),
        ("[{uri: a, weight: 0}]", ["sources.0.weight=0", "greater than 0", "default is 1.0"]),
        ("[{uri: a, weight: -2}]", ["sources.0.weight=-2", "greater than 0"]),
        ("[{uri: a, weight: .nan}]", ["sources.0.weight=nan"]),
        ("[{uri: a, weight: .inf}]", ["sources.0.weight=inf"]),
        ("[{uri: a, priority: 1.5}]", ["sources.0.priority=1.5", "integer", "default is 0"]),
        ("[{uri: a, priority: true}]", ["sources.0.priority=true", "integer"]),
        (
            "[{uri: a, label_map: {up: bullish}}]",
            ["sources.0.label_map.up='bullish'", "'negative', 'neutral' or 'positive'"],
        ),
        (
            "[{uri: a, label_map: {Up: positive, up: negative}}]",  # labels are read in any case
            ["sources.0.label_map", "up"],
        ),
        (
            "[{uri: a, thresholds: [0.1, -0.1]}]",
            ["sources.0.thresholds: [0.1, -0.1]", "Write e.g. [-0.1, 0.1]"],
        ),
        (
            "[{uri: a, thresholds: [-0.1]}]",
            ["sources.0.thresholds.1: is missing. Write it: the label column holds scores"],
        ),
        ("[{uri: a, thresholds: [.nan, 1]}]", ["sources.0.thresholds: [nan, 1.0]"]),
        ("[{uri: a, thresholds: [0, high]}]", ["sources.0.thresholds.1='high'", "number"]),
        ("[{uri: a, format: jsonl, delimiter: ;}]", ["sources.0: 'a'", "delimiter", "is for CSV"]),
        ("[{uri: a, text: x, label: x}]", ["sources.0: 'a'", "text and label are both 'x'"]),
        (
            "[{uri: a, thresholds: [0, 1], label_map: {up: positive}}]",
            ["sources.0: 'a'", "label_map and thresholds", "only thresholds", "only label_map"],
        ),
    ],
)
def test_a_wrong_source_is_named_with_the_remedy(sources: str, phrases: list[str]) -> None:
    text = problem(f"sources={sources}")
    assert all(phrase in text for phrase in phrases), text


@pytest.mark.parametrize("sign", [";", "|", "\t", "~"])
def test_a_delimiter_is_one_character(sign: str) -> None:
    assert SourceConfig(uri="a.csv", delimiter=sign).delimiter == sign


@pytest.mark.parametrize("sign", ["", ";;", "a", "1", '"', "\n", "\r", " ", "§"])
def test_an_invalid_delimiter_is_refused(sign: str) -> None:
    with pytest.raises(ValueError, match="must be one ASCII character"):
        SourceConfig(uri="a.csv", delimiter=sign)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://{secret}:{secret}@bucket/x.csv",
        "S3://key:{secret}@bucket/x.csv",
        "s3://{secret}@bucket/x.csv",
        "s3://key:a/{secret}@bucket/x.csv",  # a slash ends the host, but not the secret
        "s3://key:a?{secret}@bucket/x.csv",
        "Gs://{secret}@bucket/x.csv",
        "abfs://account:{secret}@container/x.csv",
        "HDFS://user:{secret}@host:9000/x.csv",
        "hf://user:{secret}@owner/name",
        "https://user:{secret}@host/x.csv",
        "s3://b/x.csv?access_key=K&secret_key={secret}",
        "s3://b/x.csv?secret%5Fkey={secret}",
        "s3://b/x.csv?secret_key={secret}?region=us-east-1",
        "s3://b/x.csv?region=us-east-1&{secret}=",
        "s3://b?secret_key={secret}",
        "https://host/x.csv?sig={secret}%3D",
    ],
)
@pytest.mark.parametrize("field", ["sources", "exclude"])
def test_no_secret_gets_into_a_manifest_or_a_message(field: str, uri: str) -> None:
    uri = uri.format(secret="wJalrXUtnFEMI")
    for value in (f"['{uri}']", f"[{{uri: '{uri}', text: headline}}]"):
        text = problem(f"{field}={value}")
        assert text.startswith(f"{field}.0.uri: the URI h"), text
        assert "Leave them out" in text
        assert "wJalr" not in text


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/x.csv?endpoint_override=host:9000&scheme=http&region=us-east-1&anonymous=true",
        "abfs://container@account.dfs.core.windows.net/x.csv",
        "hdfs://user@host:9000/x.csv",
        "s3://bucket/part-?.csv",
        "s3://bucket/50%:a@b.csv",
        "hf://imdb:train",
        "hf://owner/name@main:train",
        "hf:///data/a:b@c",
        "/data/a:b@c?d=e.csv",
    ],
)
def test_uris_without_secrets_are_accepted(uri: str) -> None:
    assert config(f"sources=['{uri}']").sources[0].uri == uri


def test_schemes_are_read_in_any_case() -> None:
    assert config("sources=['S3://Bucket/A.csv']").sources[0].uri == "s3://Bucket/A.csv"


# --- conflicts and other limits -------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["drop", "majority", "priority", "keep", "error"])
def test_conflict_policies_by_name(policy: str) -> None:
    assert config(f"conflicts={policy}").conflicts == policy


def test_preferred_labels_keep_their_order() -> None:
    policy = config("conflicts={prefer: [positive, negative]}").conflicts
    assert isinstance(policy, PreferPolicy)
    assert policy.prefer == ["positive", "negative"]


@pytest.mark.parametrize(
    ("value", "phrases"),
    [
        ("vote", ["conflicts='vote'", "'drop'", "'majority'", "'priority'", "prefer"]),
        ("{prefer: [up]}", ["prefer", "'up'", "'negative', 'neutral' or 'positive'"]),
        ("{prefer: []}", ["prefer", "at least 1"]),
        ("{prefer: [neutral, neutral]}", ["prefer", "names a label twice", "Write each once"]),
        ("{favour: [neutral]}", ["favour", "prefer"]),
        ("{priority: 1}", ["conflicts.prefer: is missing. Write it: policy for a text"]),
    ],
)
def test_a_wrong_policy_is_named_with_the_remedy(value: str, phrases: list[str]) -> None:
    text = problem(f"conflicts={value}")
    assert text.startswith("conflicts")
    assert all(phrase in text for phrase in phrases), text


@pytest.mark.parametrize(
    ("override", "phrases"),
    [
        ("max_chars=9", ["max_chars=9", "greater than or equal to 10", "default is 5000"]),
        ("max_rejected_fraction=-0.1", ["max_rejected_fraction=-0.1", "default is 0.01"]),
        ("near_duplicates.threshold=0.3", ["near_duplicates.threshold=0.3", "default is 0.75"]),
        ("near_duplicates.threshold=1.01", ["near_duplicates.threshold=1.01", "default is 0.75"]),
        ("near_duplicates.permutations=8", ["near_duplicates.permutations=8", "default is 128"]),
        ("label_noise.folds=1", ["label_noise.folds=1", "default is 5"]),
        ("label_noise.max_rows=99", ["label_noise.max_rows=99", "default is 20000"]),
        ("label_column=Sentence", ["text_column and label_column are both 'Sentence'"]),
        ("name=Up/down", ["name='Up/down'", "small letters, digits"]),
    ],
)
def test_limits(override: str, phrases: list[str]) -> None:
    text = problem(override)
    assert all(phrase in text for phrase in phrases), text


# --- splits ---------------------------------------------------------------------------------------

TIME = "split.time={{column: day, validation_from: {}, test_from: {}}}"


@pytest.mark.parametrize(
    ("validation", "test"),
    [
        ("2024-01-01", "2024-07-01"),
        ("2024-01-01T08:00", "2024-01-01T08:00:01"),
        ("2024-07-01T01:00+02:00", "2024-07-01T00:00"),  # a time without a zone is in UTC
        ("2023-12-31T23:59:59Z", "2024-01-01"),
    ],
)
def test_a_time_split_keeps_its_times_as_written(validation: str, test: str) -> None:
    time = config(TIME.format(f"'{validation}'", f"'{test}'")).split.time
    assert (time.column, time.validation_from, time.test_from) == ("day", validation, test)


def test_unquoted_dates_are_dates(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(
        "split:\n  time:\n    column: day\n    validation_from: 2024-01-01\n"
        "    test_from: 2024-07-01\n"
    )
    keys = ["column=day", "validation_from=2024-01-01", "test_from=2024-07-01"]
    given = config(*(f"split.time.{key}" for key in keys))
    assert load(DataConfig, [file], []) == given
    assert given.split.time.test_from == "2024-07-01"


@pytest.mark.parametrize(
    ("overrides", "phrases"),
    [
        (["split.time.column=day"], ["split.time: column, validation_from and test_from"]),
        (["split.time.test_from=2024-07-01"], ["belong together", "{column: date, validation_"]),
        ([TIME.format("soon", "2024-07-01")], ["split.time: 'soon'", "Write e.g. 2024-07-01"]),
        (
            [TIME.format("2024-13-01", "2024-07-01")],
            ["split.time: '2024-13-01'", "not an ISO date"],
        ),
        (
            [TIME.format("2024-07-01", "2024-07-01")],
            ["validation_from='2024-07-01'", "not before test_from='2024-07-01'", "Write a later"],
        ),
        (
            [TIME.format("'2024-07-01T00:00'", "'2024-07-01T01:00+02:00'")],
            ["validation_from='2024-07-01T00:00'", "not before"],
        ),
        (
            ["split.group_by=firm", TIME.format("2024-01-01", "2024-07-01")],
            ["split: group_by='firm'", "time.column='day'", "Choose one"],
        ),
        (
            ["split.train=0.7", "split.test=0.2", TIME.format("2024-01-01", "2024-07-01")],
            ["split: train=0.7, test=0.2", "time.column='day'", "Leave the fractions out"],
        ),
        (["split.train=0.9"], ["split: train=0.9, validation=0.1, test=0.1", "1.1", "0.8, 0.1"]),
        (["split.test=0"], ["split.test=0", "greater than 0", "default is 0.1"]),
    ],
)
def test_a_wrong_split_is_named_with_the_remedy(overrides: list[str], phrases: list[str]) -> None:
    text = problem(*overrides)
    assert all(phrase in text for phrase in phrases), text


def test_fractions_may_add_up_to_one_approximately() -> None:
    assert 0.7 + 0.2 + 0.1 != 1
    assert SplitConfig(train=0.7, validation=0.2, test=0.1).validation == 0.2
