"""References: each kind by its own spelling, a bare name only where it names one thing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from finsent.config import load
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import ConfigError, InputError
from finsent.names import alias_problem
from finsent.registry.model_handle import Model
from finsent.registry.registry import Registry
from finsent.workspace import Workspace
from ray_jobs._settings import JobSettings
from tests.unit.dataset_versions import Row, write
from tests.unit.registry.model_dirs import CODE, METRICS, model_dir

FIELD = "evaluate.model"


@dataclass(frozen=True)
class Store:
    """A registry with the alias `champion`, runs, and a working directory."""

    root: Path
    registry: Registry
    version: str

    @property
    def workspace(self) -> Workspace:
        return Workspace.at(self.root, self.registry.root)

    @property
    def runs(self) -> Path:
        return self.workspace.runs_dir

    def run(self, name: str) -> Path:
        model = model_dir(self.runs / name / "model", seed=len(name))
        (self.runs / name / "result.json").write_text("{}")
        return model

    def find(self, reference: str) -> Path:
        return Model.find(reference, self.workspace, FIELD).folder

    def refusal(self, reference: str) -> str:
        with pytest.raises(InputError) as caught:
            self.find(reference)
        return str(caught.value)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    registry = Registry(tmp_path / "registry")
    published = registry.publish(model_dir(tmp_path / "source"), METRICS, CODE)
    registry.promote(published.version, "champion")
    return Store(tmp_path, registry, published.version)


def test_each_kind_has_a_spelling_and_a_bare_name_of_one_kind_works(store: Store) -> None:
    run = store.run("nightly")
    model_dir(store.root / "here" / "mine", seed=9)
    version = store.registry.version_dir(store.version)
    for reference, reading in {
        "alias:champion": version,
        "champion": version,
        f"version:{store.version}": version,
        store.version: version,
        "run:nightly": run,
        "nightly": run,
        "latest": run,
        "./mine": store.root / "here" / "mine",
        "mine": store.root / "here" / "mine",
        str(store.root / "here" / "mine"): store.root / "here" / "mine",
    }.items():
        assert store.find(reference) == reading, reference


def test_name_of_two_kinds_is_refused_with_both_spellings(store: Store) -> None:
    run = store.run("champion")
    assert store.refusal("champion") == (
        "evaluate.model='champion': names 2 different things. Write alias:champion or run:champion."
    )
    assert store.find("run:champion") == run
    assert store.find("alias:champion") == store.registry.version_dir(store.version)
    folder = model_dir(store.root / "here" / "champion", seed=9)
    assert "Write alias:champion or run:champion or ./champion." in store.refusal("champion")
    assert store.find("./champion") == folder


def test_run_and_folder_of_one_name_are_refused_where_only_runs_are_accepted(store: Store) -> None:
    def unpublished(reference: str) -> Model:
        return Model.find_unpublished(reference, store.workspace, "publish.model")

    run = store.run("champion")
    assert unpublished("champion").folder == run  # no alias is accepted there
    model_dir(store.root / "here" / "champion", seed=9)
    with pytest.raises(InputError, match=r"Write run:champion or \./champion\."):
        unpublished("champion")
    with pytest.raises(InputError, match=r"^publish\.model='alias:x': .*Write run:NAME or a path"):
        unpublished("alias:x")


def test_two_spellings_of_one_directory_are_no_conflict(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.run("nightly")
    monkeypatch.chdir(store.runs)
    assert store.find("nightly") == run
    (store.runs / "link").symlink_to("nightly")
    assert store.find("run:link") == store.runs / "link" / "model"


def test_a_damaged_version_is_refused_by_path_and_by_link_too(store: Store) -> None:
    version = store.registry.version_dir(store.version)
    (store.root / "link").symlink_to(version)
    for reference in (str(version), str(store.root / "link")):
        assert store.find(reference) == version
    config = version / "config.json"
    config.chmod(0o644)
    config.write_text(config.read_text() + " ")
    for reference in (str(version), str(store.root / "link"), f"version:{store.version}"):
        assert "config.json does not match its SHA-256" in store.refusal(reference)


def test_run_called_latest_does_not_hide_the_last_run(store: Store) -> None:
    store.run("latest")
    assert store.find("latest") == store.runs / "latest" / "model"  # it is the last one
    (store.run("later").parent / "result.json").touch()
    assert "Write run:latest or run:later." in store.refusal("latest")


def test_alias_that_looks_like_a_version_is_refused_where_both_exist(store: Store) -> None:
    other = store.registry.publish(model_dir(store.root / "other", seed=5), METRICS, CODE)
    champion = store.root / "registry" / "aliases" / "champion.json"
    shutil.copy(champion, champion.with_name(f"{other.version}.json"))  # of an older finsent
    text = store.refusal(other.version)
    assert f"Write alias:{other.version} or version:{other.version}." in text
    with pytest.raises(InputError, match=f"alias:{other.version} or version:{other.version}"):
        store.registry.get(other.version)
    assert store.find(f"version:{other.version}") == other.path


@pytest.mark.parametrize(
    ("reference", "phrase"),
    [
        ("run:champion", "neither a run in"),
        ("alias:nightly", "no such alias in the registry"),
        ("./champion", "neither a run in"),
        ("version:0123456789ab", "no such version in the registry"),
        ("runs:nightly", "Write run:NAME or alias:NAME or version:ID or a path with a slash"),
        ("run:", "Write run:NAME or"),
        ("run:a/b", "Write run:NAME or"),
    ],
)
def test_reference_to_nothing_is_refused(store: Store, reference: str, phrase: str) -> None:
    store.run("nightly")
    text = store.refusal(reference)
    assert text.startswith(f"evaluate.model={reference!r}: ")
    assert phrase in text


def test_registry_accepts_aliases_and_versions_only(store: Store) -> None:
    store.run("nightly")
    assert store.registry.get("alias:champion").version == store.version
    assert store.registry.get(f"version:{store.version}").version == store.version
    assert store.registry.resolve("nightly") is None
    with pytest.raises(InputError, match=r"Write alias:NAME or version:ID\."):
        store.registry.get("run:nightly")
    with pytest.raises(InputError, match="no such alias or version"):
        store.registry.get("alias:nightly")
    with pytest.raises(InputError, match=r"^calibrate\.model='run:nightly': .*Write alias:NAME"):
        store.registry.get("run:nightly", "calibrate.model")


# --- aliases --------------------------------------------------------------------------------------

BAD = ["latest", "0123456789ab"[::-1], "deadbeef0123", "a:b", "a/b", "Champion", "9lives", "", "-x"]


@pytest.mark.parametrize("alias", BAD)
@pytest.mark.parametrize("field", ["publish.alias", "adopt.name", "sweep.publish"])
def test_alias_is_checked_by_one_rule_before_any_work(store: Store, alias: str, field: str) -> None:
    problem = alias_problem(alias)
    assert problem
    with pytest.raises(ConfigError) as caught:
        load(JobSettings, [], [f'{field}="{alias}"'])
    assert str(caught.value).startswith(f"{field}={alias!r}: {problem}")
    with pytest.raises(InputError) as refused:
        store.registry.promote("champion", alias)
    assert str(refused.value) == f"alias {alias!r}: {problem}"


@pytest.mark.parametrize("alias", ["champion", "news_2", "a-b", "f00d"])
@pytest.mark.parametrize("field", ["publish.alias", "adopt.name", "sweep.publish"])
def test_usual_aliases_are_accepted_everywhere(store: Store, alias: str, field: str) -> None:
    section, _, name = field.partition(".")
    assert getattr(getattr(load(JobSettings, [], [f"{field}={alias}"]), section), name) == alias
    assert store.registry.promote("champion", alias).version == store.version


# --- dataset versions -----------------------------------------------------------------------------


def test_dataset_version_and_folder_of_one_name(store: Store) -> None:
    datasets = store.root / "datasets"
    write(datasets / "0123456789ab", [Row("profit rose", "positive", "train")])

    def find(reference: str) -> Path:
        return DatasetVersion.find(reference, datasets, "train.dataset").path

    for reference in ("0123456789ab", "version:0123456789ab", "latest"):
        assert find(reference) == datasets / "0123456789ab"
    here = store.root / "here" / "0123456789ab"
    write(here, [Row("loss widened", "negative", "train")])
    with pytest.raises(InputError) as caught:
        find("0123456789ab")
    assert str(caught.value) == (
        "train.dataset='0123456789ab': names 2 different things. "
        "Write version:0123456789ab or ./0123456789ab."
    )
    assert find("./0123456789ab") == here
    assert find("version:0123456789ab") == datasets / "0123456789ab"
    with pytest.raises(InputError, match="Write version:ID or a path"):
        find("run:nightly")
