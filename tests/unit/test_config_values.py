"""Values of settings: accepted, refused, replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.config import load, to_yaml
from finsent.errors import ConfigError
from finsent.training.config import TrainConfig
from ray_jobs._settings import JobSettings
from tests.unit.config_problems import problem, write

# --- unknown keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "phrases"),
    [
        ("train.epoch=1", ["train.epoch:", "Did you mean 'train.epochs'?"]),
        ("train.Epochs=1", ["train.Epochs:", "Did you mean 'train.epochs'?"]),
        ("trian.epochs=1", ["trian:", "Did you mean 'train'?"]),
        ("data.split.tests=0.1", ["data.split.tests:", "Did you mean 'data.split.test'?"]),
        ("epochs=1", ["epochs:", "Did you mean 'train.epochs'?"]),
        ("learning_rate=1e-4", ["learning_rate:", "Did you mean 'train.learning_rate'?"]),
        ("data.epochs=1", ["data.epochs:", "Did you mean 'train.epochs'?"]),
        ("zzz=1", ["zzz:", "Sections are ", "train", "data.split", "registry"]),
    ],
)
def test_unknown_key_names_the_nearest_one(override: str, phrases: list[str]) -> None:
    text = problem(override)
    assert all(phrase in text for phrase in [*phrases, "unknown key", "--help"]), text


@pytest.mark.parametrize("value", ["auto", "yes", "no"])
def test_yes_and_no_of_use_gpu_are_text(value: str) -> None:
    assert load(JobSettings, [], [f"train.use_gpu={value}"]).train.use_gpu == value


def test_a_dash_is_standard_input() -> None:
    assert load(JobSettings, [], ["classify.input=-"]).classify.input == "-"


def test_right_name_in_the_wrong_section_is_found() -> None:
    assert "Did you mean 'model.max_length'?" in problem("train.max_length=64")


def test_hint_is_not_the_section_that_was_written() -> None:
    assert "Did you mean 'train'?" not in problem("train.zzz=1")


# --- wrong values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "phrases"),
    [
        ("train.epochs=two", ["train.epochs='two'", "integer", "default is 4"]),
        ("train.epochs=2.5", ["train.epochs=2.5", "integer", "default is 4"]),
        ("train.epochs=", ["train.epochs=null", "integer", "default is 4"]),
        ("train.epochs=true", ["train.epochs=true", "integer", "default is 4"]),
        ("train.epochs=[1]", ["train.epochs=[1]", "integer", "default is 4"]),
        ("ray.num_cpus=many", ["ray.num_cpus='many'", "integer", "default is null"]),
        ("evaluate.baselines=maybe", ["evaluate.baselines='maybe'", "boolean", "default is true"]),
        (
            "data.sources=a.csv",
            ["data.sources='a.csv'", "list", "Write data.sources='[\"a.csv\"]'."],
        ),
        ("data.sources=[]", ["data.sources=[]", "at least 1", "default is [sample]"]),
        ("data.sources=[1]", ["data.sources.0", "1 is not a source", "a mapping with `uri`"]),
        ("data.sources=[{format: csv}]", ["data.sources.0.uri: is missing", "Write it: path"]),
        (
            "data.sources=[{uri: a, prioriy: 1}]",
            ["data.sources.0.prioriy", "'data.sources[].priority'"],
        ),
        ("data.salt=[5]", ["data.salt=[5]", "string", "default is finsent"]),
        ("data=3", ["data=3", "is a section", "data.NAME=VALUE"]),
        ("data.split=0.8", ["data.split=0.8", "is a section", "data.split.NAME=VALUE"]),
        ("train.precision=fp8", ["train.precision='fp8'", "'bf16' or 'fp16'"]),
        ("train.class_weights=balaced", ["train.class_weights", "'none' or 'balanced'", "mapping"]),
        ("train.class_weights={negativ: 2}", ["negativ"]),
        ("train.layer_decay=0", ["train.layer_decay=0", "greater than 0"]),
        ("data.encoding=utf9", ["data.encoding", "'utf9'", "cp1252"]),
        ("data.encoding=hex", ["data.encoding", "'hex'", "cp1252"]),  # a codec, but not of text
    ],
)
def test_wrong_type_names_field_value_and_default(override: str, phrases: list[str]) -> None:
    text = problem(override)
    assert all(phrase in text for phrase in phrases), text


@pytest.mark.parametrize(
    ("override", "phrases"),
    [
        ("train.epochs=0", ["train.epochs=0", "greater than or equal to 1", "default is 4"]),
        ("train.epochs=1001", ["train.epochs=1001", "less than or equal to 1000"]),
        ("train.learning_rate=1", ["train.learning_rate=1", "less than 1"]),
        ("train.learning_rate=0", ["train.learning_rate=0", "greater than 0"]),
        ("train.max_grad_norm=nan", ["train.max_grad_norm='nan'", "greater than 0"]),
        ("data.split.train=1", ["data.split.train=1", "less than 1", "default is 0.8"]),
        ("data.max_rejected_fraction=2", ["data.max_rejected_fraction=2", "default is 0.01"]),
        ("model.max_length=513", ["model.max_length=513", "512", "default is 128"]),
        ("ray.num_cpus=0", ["ray.num_cpus=0", "equal to 1", "default is null"]),
        ("engine.token_budget=15", ["engine.token_budget=15", "16", "default is 1024"]),
        ("train.num_workers=[4,1]", ["train.num_workers: [4, 1] is no", "maximum, e.g. [1, 4]."]),
        ("train.num_workers=0", ["train.num_workers", "1 to 1024"]),
        ("train.trainer=keras", ["train.trainer='keras'", "'native'", "'lightning'"]),
        ("tracking.mode=on", ["tracking.mode", "'offline'"]),
        ("data.name=../up", ["data.name='../up'", "small letters, digits"]),
        ("run.name=a/b", ["run.name='a/b'", "letters, digits"]),
        ("run.name=latest", ["run.name: 'latest' means the last", "Choose another name."]),
        ("publish.alias=Champion", ["publish.alias='Champion'", "small letters"]),
        ('storage.root=""', ["storage.root=''", "at least 1 character"]),
    ],
)
def test_out_of_range_names_field_value_and_limit(override: str, phrases: list[str]) -> None:
    text = problem(override)
    assert all(phrase in text for phrase in phrases), text


@pytest.mark.parametrize(
    ("overrides", "phrases"),
    [
        (
            ["data.split.train=0.9"],
            ["data.split:", "train=0.9", "validation=0.1", "test=0.1", "1.1", "add up to 1"],
        ),
        (
            ["train.batch_size=3", "train.num_workers=4"],
            ["train:", "batch_size=3", "num_workers=4", "Raise batch_size or lower num_workers"],
        ),
        (
            ["data.text_column=Body", "data.label_column=Body"],
            ["data:", "text_column and label_column", "'Body'", "Name two columns"],
        ),
    ],
)
def test_contradiction_names_both_sides(overrides: list[str], phrases: list[str]) -> None:
    text = problem(*overrides)
    assert all(phrase in text for phrase in phrases), text


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.1), (0.34, 0.33, 0.33), (0.98, 0.01, 0.01)])
def test_shares_that_add_up_but_for_rounding_are_accepted(shares: tuple[float, ...]) -> None:
    names = ("train", "validation", "test")
    pairs = zip(names, shares, strict=True)
    split = load(
        JobSettings, [], [f"data.split.{name}={share}" for name, share in pairs]
    ).data.split
    assert (split.train, split.validation, split.test) == shares


@pytest.mark.parametrize("key", ["storage.root", "registry.root"])
@pytest.mark.parametrize("uri", ["ftp://bucket/x", "file:///tmp/x"])
def test_uri_that_is_no_object_store_is_refused_with_the_remedy(key: str, uri: str) -> None:
    text = problem(f"{key}={uri}")
    assert text.startswith(f"{key}: '{uri}' is not a storage location")
    assert "Write a directory, or s3://BUCKET/PREFIX" in text


def test_value_that_fits_no_branch_of_a_union_is_one_problem() -> None:
    text = problem("train.class_weights=balaced")
    assert text == (
        "train.class_weights='balaced': must be 'none' or 'balanced'. Or write a mapping with "
        "negative, neutral, positive. The default is none."
    )


def test_several_wrong_keys_come_in_one_line() -> None:
    text = problem("train.epochs=0", "train.epoch=1", "model.max_length=3", "ray.num_cpus=x")
    first, _, others = text.partition(" (also wrong: ")
    named = {first.split("=")[0].split(":")[0], *others.removesuffix(")").split(", ")}
    assert named == {"train.epochs", "train.epoch", "model.max_length", "ray.num_cpus"}
    assert "\n" not in text


@pytest.mark.parametrize("value", ["${train.nothing}", "${oc.env:FINSENT_NOT_SET}", "${"])
def test_broken_interpolation_names_its_key(value: str) -> None:
    text = problem(f"data.name={value}")
    assert "data.name" in text, text


# --- changing -------------------------------------------------------------------------------------


def test_replaced_values_are_validated_and_the_others_stay() -> None:
    train = load(JobSettings, [], ["train.epochs=7"]).train
    assert train.replaced(seed=5) == TrainConfig(epochs=7, seed=5)
    with pytest.raises(ConfigError, match=r"^batch_size=2 is less than num_workers=4"):
        train.replaced(batch_size=2, num_workers=4)
    with pytest.raises(ConfigError, match=r"^epoch: unknown key. Did you mean .epochs"):
        train.replaced(epoch=1)


# --- printing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"run": {"name": "nightly-1"}, "train": {"epochs": 7, "learning_rate": 3e-5}},
        {"data": {"sources": ["a b.csv", "#c.csv", "dépêches.csv"], "split": {"train": 0.8}}},
        *({"data": {"salt": salt}} for salt in ("null", "yes", "1", "a: b", "", "1e3", "${x}")),
    ],
)
def test_printed_config_loads_unchanged(tmp_path: Path, changed: dict[str, object]) -> None:
    settings = JobSettings.model_validate(changed)
    printed = to_yaml(settings)
    assert load(JobSettings, [write(tmp_path, "printed.yaml", printed)], []) == settings


@pytest.mark.parametrize("version", ["123456789012", "12345678e901", "a23456789012"])
def test_every_version_id_can_be_written_as_an_override(version: str) -> None:
    assert load(JobSettings, [], [f"train.dataset={version}"]).train.dataset == version
