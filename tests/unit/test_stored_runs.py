"""Runs in a bucket: machines see each other's runs, and none overwrites another's changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.registry.model_handle import Model
from finsent.runs import RESULT
from finsent.storage import Location, StorageConfig
from finsent.stored_runs import StoredRuns
from finsent.workspace import Workspace
from tests.fault_proxy import fault_proxy


@pytest.fixture
def machines(s3_root: str, tmp_path: Path) -> list[Workspace]:
    """The workspaces of two machines with one root."""
    return [workspace(s3_root, tmp_path / name) for name in "ab"]


def workspace(root: str, cache: Path) -> Workspace:
    return Workspace.at(root, config=StorageConfig(cache_dir=str(cache), retry_seconds=1))


def write_run(runs: StoredRuns, name: str, *, provenance: str = "{}") -> Path:
    run_dir = runs.runs_dir / name
    for path, text in {
        "config.json": "{}",
        "model/provenance.json": provenance,
        "model/model.safetensors": "weights",
        "checkpoint_000001/state.pt": "state",
        ".staging-x": "half",
    }.items():
        (run_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / path).write_text(text)
    return run_dir


def end(runs: StoredRuns, run_dir: Path) -> None:
    (run_dir / RESULT).write_text("{}")
    runs.store_ended(run_dir)


def content(folder: Path) -> dict[str, str]:
    """Return the texts of a run's files without the state of its storage."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".stored.json"
    }


def test_a_run_arrives_with_its_checkpoints_where_they_are_asked_for(
    machines: list[Workspace],
) -> None:
    here, there = map(StoredRuns.of, machines)
    run_dir = write_run(here, "first")
    end(here, run_dir)
    expected = content(run_dir)
    del expected[".staging-x"]
    copied = there.fetch("first", checkpoints=True)
    assert content(copied) == expected
    assert copied.is_relative_to(machines[1].root.cache.folder)
    assert Model.find("run:first", machines[1], "evaluate.model").folder == copied / "model"


def test_checkpoints_are_not_copied_for_a_model(machines: list[Workspace]) -> None:
    here, there = map(StoredRuns.of, machines)
    end(here, write_run(here, "first"))
    assert not (there.fetch("first") / "checkpoint_000001").exists()


def test_a_change_elsewhere_arrives_and_leaves_no_old_tree(machines: list[Workspace]) -> None:
    here, there = map(StoredRuns.of, machines)
    run_dir = write_run(here, "first")
    end(here, run_dir)
    (there.fetch("first") / "metrics.json").write_text("{}")
    there.store_ended(None)
    assert (here.fetch("first") / "metrics.json").read_text() == "{}"
    assert len(here.location.trees.names("first")) == 1


def test_changes_on_two_machines_at_once_are_an_error_and_the_first_one_stays(
    machines: list[Workspace],
) -> None:
    here, there = map(StoredRuns.of, machines)
    run_dir = write_run(here, "first")
    end(here, run_dir)
    (there.fetch("first") / "metrics.json").write_text("theirs")
    there.store_ended(None)
    (run_dir / "metrics.json").write_text("ours")
    with pytest.raises(InputError, match=r"run.name='first': another machine has changed this run"):
        here.store_ended(None)
    assert (here.fetch("first") / "metrics.json").read_text() == "theirs"
    here.store_ended(None)


def test_a_name_belongs_to_the_machine_that_starts_first(machines: list[Workspace]) -> None:
    here, there = map(StoredRuns.of, machines)
    ours, theirs = write_run(here, "first"), write_run(there, "first")
    here.store_started(ours)
    with pytest.raises(InputError, match=r"run.name='first': another machine"):
        there.store_started(theirs)
    end(here, ours)


def test_latest_is_the_run_that_ended_last_and_no_adopted_one(machines: list[Workspace]) -> None:
    here, there = map(StoredRuns.of, machines)
    end(here, write_run(here, "first"))
    end(there, write_run(there, "second"))
    end(there, write_run(there, "third", provenance='{"origin": {"library": "transformers"}}'))
    there.fetch("first")  # a copy is no training
    for machine in machines:
        model = Model.find("latest", machine, "evaluate.model")
        assert model.folder.parent.name == "second"


def test_an_upload_that_failed_is_made_up_by_the_next_job(
    s3_server: str, s3_root: str, tmp_path: Path
) -> None:
    with fault_proxy(s3_server) as proxy:
        endpoint = proxy.url.removeprefix("http://")
        root = f"{s3_root}?endpoint_override={endpoint}&scheme=http"
        runs = StoredRuns.of(workspace(root, tmp_path / "a"))
        run_dir = write_run(runs, "first")
        runs.store_started(run_dir)
        (run_dir / "metrics.json").write_text("{}")
        proxy.choose = lambda _: "503"
        with pytest.raises(InputError, match="cannot be used for 1 s"):
            end(runs, run_dir)
        proxy.choose = lambda _: None
        runs.store_ended(None)
    there = StoredRuns.of(workspace(s3_root, tmp_path / "b"))
    assert (there.fetch("first") / "metrics.json").is_file()


def test_a_local_root_needs_no_copies(tmp_path: Path) -> None:
    runs = StoredRuns.of(Workspace.at(tmp_path))
    run_dir = write_run(runs, "first")
    before = content(run_dir)
    runs.store_started(run_dir)
    end(runs, run_dir)
    assert content(runs.fetch("first", checkpoints=True)) == {**before, RESULT: "{}"}
    assert runs.location == Location.at(tmp_path) / "runs"
