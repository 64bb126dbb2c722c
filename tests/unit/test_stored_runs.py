"""Runs in a bucket: machines see each other's runs, and none overwrites another's changes."""

from __future__ import annotations

import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from finsent.errors import InputError
from finsent.files import write_json
from finsent.records import ContentDigest
from finsent.registry.model_handle import Model
from finsent.runs import RESULT
from finsent.storage import Location, StorageConfig
from finsent.stored_runs import StoredRuns
from finsent.training.checkpoint import (
    OPTIMIZER_FILE,
    STATE_FILE,
    StateRecord,
    epoch_checkpoint_name,
    state_digest,
)
from finsent.workspace import Workspace
from tests.fault_proxy import fault_proxy

CHECKPOINT = epoch_checkpoint_name(1)
CHECKPOINT_FILES = {
    OPTIMIZER_FILE: "moments",
    "model/config.json": "{}",
    "model/model.safetensors": "weights",
}


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
        **{f"{CHECKPOINT}/{path}": text for path, text in CHECKPOINT_FILES.items()},
        ".staging-x": "half",
    }.items():
        (run_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / path).write_text(text)
    write_json(run_dir / CHECKPOINT / STATE_FILE, checkpoint_state())
    return run_dir


def checkpoint_state() -> dict[str, Any]:
    """Return the content of a checkpoint's `state.json`."""
    digests = {
        path: ContentDigest(bytes=len(text), sha256=sha256(text.encode()).hexdigest())
        for path, text in CHECKPOINT_FILES.items()
    }
    record = StateRecord(optimizer_tensors=0, files=digests, digest="")
    content = record.model_dump(mode="json")
    return {**content, "digest": state_digest(content)}


def end(runs: StoredRuns, run_dir: Path) -> None:
    (run_dir / RESULT).write_text("{}")
    runs.store_ended(run_dir)


def end_other_job(runs: StoredRuns) -> None:
    """End a job with a run of its own that has changed other runs, as `evaluate` does."""
    run_dir = runs.runs_dir / f"evaluate-{uuid.uuid4().hex[:8]}"
    run_dir.mkdir()
    end(runs, run_dir)


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
    assert not (there.fetch("first") / CHECKPOINT).exists()


def test_a_change_elsewhere_arrives_and_leaves_no_old_tree(machines: list[Workspace]) -> None:
    here, there = map(StoredRuns.of, machines)
    run_dir = write_run(here, "first")
    end(here, run_dir)
    (there.fetch("first") / "metrics.json").write_text("{}")
    end_other_job(there)
    assert (here.fetch("first") / "metrics.json").read_text() == "{}"
    assert len(here.location.trees.names("first")) == 1


def test_changes_on_two_machines_at_once_are_an_error_and_the_first_one_stays(
    machines: list[Workspace],
) -> None:
    here, there = map(StoredRuns.of, machines)
    run_dir = write_run(here, "first")
    end(here, run_dir)
    (there.fetch("first") / "metrics.json").write_text("theirs")
    end_other_job(there)
    (run_dir / "metrics.json").write_text("ours")
    with pytest.raises(InputError, match=r"run.name='first': another machine has changed this run"):
        end_other_job(here)
    assert (here.fetch("first") / "metrics.json").read_text() == "theirs"
    end_other_job(here)


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
        end_other_job(runs)
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
