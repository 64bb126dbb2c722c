"""Settings: which values are accepted, which are refused, and the messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic.fields import FieldInfo

from finsent.config import Section, help_lines, load, setting, to_yaml
from finsent.errors import ConfigError
from finsent.runs import new_run_name
from finsent.training.config import TrainConfig
from ray_jobs._settings import JobSettings
from serve_app.settings import load_service

SERVE = Path(__file__).parents[2] / "configs" / "serve.yaml"  # Ray Serve's own form
CONFIGS = sorted({*SERVE.parent.glob("*.yaml")} - {SERVE})


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problem(*overrides: str, files: tuple[Path, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load(JobSettings, files, overrides)
    return str(caught.value)


def fields(schema: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in schema.model_fields.items():
        yield f"{prefix}{name}", field
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from fields(field.annotation, f"{prefix}{name}.")


# --- unknown keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "parts"),
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
def test_unknown_key_names_the_nearest_one(override: str, parts: list[str]) -> None:
    text = problem(override)
    assert all(part in text for part in [*parts, "unknown key", "--help"]), text


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
    ("override", "parts"),
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
        ("data.sources=[1]", ["data.sources.0", "1 is no source", "a mapping with `uri`"]),
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
def test_wrong_type_names_field_value_and_default(override: str, parts: list[str]) -> None:
    text = problem(override)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("override", "parts"),
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
def test_out_of_range_names_field_value_and_limit(override: str, parts: list[str]) -> None:
    text = problem(override)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("overrides", "parts"),
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
def test_contradiction_names_both_sides(overrides: list[str], parts: list[str]) -> None:
    text = problem(*overrides)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.1), (0.34, 0.33, 0.33), (0.98, 0.01, 0.01)])
def test_shares_that_add_up_but_for_rounding_are_accepted(shares: tuple[float, ...]) -> None:
    names = ("train", "validation", "test")
    pairs = zip(names, shares, strict=True)
    split = load(
        JobSettings, [], [f"data.split.{name}={share}" for name, share in pairs]
    ).data.split
    assert (split.train, split.validation, split.test) == shares


@pytest.mark.parametrize("key", ["storage.root", "registry.root"])
@pytest.mark.parametrize("uri", ["s3://bucket/x", "file:///tmp/x"])
def test_uri_as_a_root_is_refused_with_the_remedy(key: str, uri: str) -> None:
    text = problem(f"{key}={uri}")
    assert text.startswith(f"{key}: '{uri}' is a URI")
    assert "Write a directory" in text


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


# --- files and arguments --------------------------------------------------------------------------


def test_missing_file_hints_at_a_near_name(tmp_path: Path) -> None:
    write(tmp_path, "train.yaml", "")
    text = problem(files=(tmp_path / "trian.yaml",))
    assert f"{str(tmp_path / 'trian.yaml')!r}: no such file" in text
    assert f"Did you mean {str(tmp_path / 'train.yaml')!r}?" in text
    assert "Check the path." in problem(files=(tmp_path / "none" / "train.yaml",))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "train:\n  epochs: 1\n  seed: [1\nx: 2\n",
            ["not valid YAML", "line 4", "Correct that line."],
        ),
        ("train:\n\tepochs: 1\n", ["not valid YAML", "line 2", "Correct that line."]),
        ("train:\n  epochs: 1\n  epochs: 2\n", ["line 3", "duplicate key epochs"]),
        ("a: !!python/object/apply:os.getcwd []\n", ["not valid YAML", "line 1"]),
        ("train: \x01\n", ["not valid YAML", "#x0001"]),
        ("- train\n- data\n", ["contains no mapping", "Write sections"]),
        ("hello\n", ["contains no mapping", "Write sections"]),
        ("hello # a remark\n", ["contains no mapping", "Write sections"]),
        ("5\n", ["contains no mapping", "Write sections"]),
        ("true\n", ["contains no mapping", "Write sections"]),
        ("train: 5\n", ["train=5", "is a section"]),
        ("caf\xe9: 1\n".encode("latin-1"), ["cannot be read", "utf-8"]),
    ],
)
def test_bad_file_is_named_with_the_line(
    tmp_path: Path, text: str | bytes, parts: list[str]
) -> None:
    path = write(tmp_path, "bad.yaml", text)
    message = problem(files=(path,))
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert str(path) in message or "is a section" in parts


def test_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    assert f"{str(tmp_path)!r}: cannot be read" in problem(files=(tmp_path,))


def test_files_that_do_not_merge_are_a_config_error(tmp_path: Path) -> None:
    files = (
        write(tmp_path, "a.yaml", "train:\n  epochs: 3\n"),
        write(tmp_path, "b.yaml", "train: [1]"),
    )
    assert "train" in problem(files=files)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("epochs", ["'epochs'", "key=value", "train.epochs=2"]),
        ("=3", ["'=3'", "key=value"]),
        ("data.sources=[a.csv", ["'data.sources=[a.csv'", "not valid YAML", "Quote it"]),
    ],
)
def test_bad_override_is_named_with_an_example(override: str, parts: list[str]) -> None:
    text = problem(override)
    assert all(part in text for part in parts), text


def test_later_files_win_and_overrides_win_over_files(tmp_path: Path) -> None:
    first = write(tmp_path, "1.yaml", "train: {epochs: 2, seed: 2}\ndata: {sources: [a, b]}\n")
    second = write(tmp_path, "2.yaml", "train: {epochs: 3}\ndata: {sources: [c]}\n")
    settings = load(JobSettings, [first, second], ["train.seed=4", "train.seed=5"])
    assert (settings.train.epochs, settings.train.seed) == (3, 5)
    assert [s.uri for s in settings.data.sources] == ["c"]  # a list is replaced as a whole
    assert load(JobSettings, [second, first], []).train.epochs == 2


@pytest.mark.parametrize("text", ["", "# only a remark\n", "\ufefftrain: {epochs: 4}\n"])
def test_files_without_settings_leave_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(JobSettings, [write(tmp_path, "a.yaml", text)], []) == JobSettings()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_load_as_written(file: Path) -> None:
    settings = load(JobSettings, [file], []).model_dump()
    for section, values in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        assert settings[section] == settings[section] | values


def test_there_are_shipped_configs() -> None:
    assert {"debug.yaml", "demo.yaml", "pipeline.yaml"} <= {path.name for path in CONFIGS}


def test_the_service_ignores_the_section_of_sweeps_in_a_file_for_every_job(tmp_path: Path) -> None:
    file = write(tmp_path, "all.yaml", "sweep: {trials: 3}\nserve: {port: 8123}\n")
    assert load_service([file], ["sweep.trials=4"]).serve.port == 8123
    with pytest.raises(ConfigError, match=r"^sweeps: unknown key"):
        load_service([write(tmp_path, "typo.yaml", "sweeps: {}\n")], [])


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


class Inner(Section):
    """A section in a section."""

    share: float = setting(0.5, "a share", unit="fraction", gt=0, le=1)


class Outer(Section):
    """A section."""

    mode: Literal["fast", "exact"] = setting("fast", "how it is done")
    paths: list[str] = setting(lambda: ["a"], "where to look", min_length=1)
    inner: Inner = setting(Inner, "the inner one")


class Schema(Section):
    """A schema."""

    outer: Outer = setting(Outer, "wanted")
    other: Inner = setting(Inner, "not wanted")


def test_help_has_type_unit_limits_default_and_meaning() -> None:
    assert list(help_lines(Schema, ["outer"])) == [
        "  outer.mode=fast",
        "      fast|exact. how it is done",
        "  outer.paths=[a]",
        "      list of str. where to look",
        "  outer.inner.share=0.5",
        "      float, fraction, > 0 and <= 1. a share",
    ]


@pytest.mark.parametrize("section", list(JobSettings.model_fields))
def test_help_lists_every_key_of_a_section_and_no_other(section: str) -> None:
    lines = list(help_lines(JobSettings, [section]))
    listed = [line.strip().split("=")[0] for line in lines if re.match(r"  \w", line)]
    listed = [key for key in listed if "[]" not in key]
    wanted = {
        key: field
        for key, field in fields(JobSettings)
        if key.startswith(f"{section}.")
        and not (isinstance(field.annotation, type) and issubclass(field.annotation, Section))
    }
    assert listed == list(wanted)
    assert all(str(field.description) in "\n".join(lines) for field in wanted.values())


def test_every_setting_has_a_meaning() -> None:
    assert [
        key for key, field in fields(JobSettings) if not (field.description or "").strip()
    ] == []


# --- directories ----------------------------------------------------------------------------------


def test_directories_are_below_the_storage_root(tmp_path: Path) -> None:
    settings = load(JobSettings, [], [f"storage.root={tmp_path}", "data.name=filings"])
    assert settings.workspace.versions_dir(settings.data.name) == tmp_path / "datasets" / "filings"
    assert settings.workspace.runs_dir == tmp_path / "runs"
    assert settings.workspace.registry_dir == tmp_path / "registry"
    assert settings.workspace.sources_dir == tmp_path / "sources"
    assert settings.workspace.backbones_dir == tmp_path / "backbones"
    elsewhere = load(JobSettings, [], [f"registry.root={tmp_path / 'models'}"])
    assert elsewhere.workspace.registry_dir == tmp_path / "models"


def test_relative_root_counts_from_home_inside_a_ray_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert JobSettings().workspace.root == tmp_path / "artifacts"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert JobSettings().workspace.root == tmp_path / "home" / "finsent" / "artifacts"
    assert load(JobSettings, [], ["storage.root=/srv/x"]).workspace.root == Path("/srv/x")


def test_new_run_names_are_valid_and_differ() -> None:
    names = {new_run_name("train") for _ in range(20)}
    assert len(names) > 15
    assert all(load(JobSettings, [], [f"run.name={name}"]).run.name == name for name in names)


def test_help_lists_the_keys_of_a_lists_items_once() -> None:
    lines = list(help_lines(JobSettings, ["data", "evaluate"]))
    listed = [line.strip().split("=")[0] for line in lines if "[]." in line.split("=")[0]]
    assert {key.partition("[]")[0] for key in listed} == {"data.sources"}
    assert {"data.sources[].uri", "data.sources[].label_map"} <= set(listed)
