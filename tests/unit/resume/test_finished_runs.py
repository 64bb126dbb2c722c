"""Finished runs without checkpoints stay finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from finsent.modeling.folding import fold, scaling_tensors
from finsent.runs import MODEL_DIR
from finsent.training.checkpoint import (
    best_checkpoint,
    epoch_checkpoint_name,
    list_checkpoints,
)
from finsent.training.finished_run import drop_checkpoints, finished_training, update_weights_digest
from finsent.training.metrics import EpochMetrics

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "trains a tiny model")]


@pytest.fixture
def finished_run(run_dir: Path) -> Path:
    """A run with its model."""
    best = best_checkpoint(list_checkpoints(run_dir))
    shutil.copytree(best.folder / MODEL_DIR, run_dir / MODEL_DIR)
    (run_dir / "checkpoint_manager_snapshot.json").write_text("{}")  # Ray Train's
    return run_dir


def test_a_finished_run_without_checkpoints_is_still_finished(finished_run: Path) -> None:
    before = list_checkpoints(finished_run)
    assert finished_training(finished_run) is None
    drop_checkpoints(finished_run)
    assert {p.name for p in finished_run.iterdir()} == {MODEL_DIR, "trained.json"}
    finished = finished_training(finished_run)
    assert finished is not None
    assert finished.model_dir == finished_run / MODEL_DIR
    assert finished.best == best_metrics(before[-1].history)
    assert finished.history == before[-1].history
    drop_checkpoints(finished_run)  # nothing is left to remove
    assert finished_training(finished_run) == finished


def test_a_finished_run_that_is_calibrated_again_is_still_finished(finished_run: Path) -> None:
    drop_checkpoints(finished_run)
    model = finished_run / MODEL_DIR
    names = scaling_tensors(model, [[2, 5, 3]])
    fold(model, names, 2.0)
    assert finished_training(finished_run) is None  # as if the weights were damaged
    update_weights_digest(model)
    assert finished_training(finished_run) is not None


def best_metrics(history: list[EpochMetrics]) -> EpochMetrics:
    return max(history, key=lambda metrics: (metrics.macro_f1, metrics.epoch))


def test_an_interrupted_removal_leaves_a_finished_run(finished_run: Path, tmp_path: Path) -> None:
    saved_checkpoint = shutil.copytree(finished_run / epoch_checkpoint_name(1), tmp_path / "kept")
    drop_checkpoints(finished_run)
    finished = finished_training(finished_run)
    saved_checkpoint.rename(finished_run / epoch_checkpoint_name(1))  # was not removed yet
    assert finished_training(finished_run) == finished
    drop_checkpoints(finished_run)
    assert finished_training(finished_run) == finished


def test_unreadable_checkpoints_are_not_removed(finished_run: Path) -> None:
    for state in finished_run.glob("checkpoint_*/state.json"):
        state.write_text("{")
    before = sorted(finished_run.iterdir())
    drop_checkpoints(finished_run)
    assert sorted(finished_run.iterdir()) == before


@pytest.mark.parametrize(
    ("damage_run", "phrase"),
    [
        (
            lambda run: (run / MODEL_DIR / "model.safetensors").write_bytes(b"x"),
            "model.safetensors: has changed since training wrote it",
        ),
        (
            lambda run: (run / MODEL_DIR / "tokenizer.json").write_text("{}"),
            "tokenizer.json: has changed since training wrote it",
        ),
        (
            lambda run: (run / MODEL_DIR / "tokenizer.json").unlink(),
            "tokenizer.json",
        ),
        (lambda run: shutil.rmtree(run / MODEL_DIR), "config.json is missing"),
        (lambda run: (run / "trained.json").write_text("{"), "not valid JSON"),
        (lambda run: (run / "trained.json").write_text("[]"), "the file: Input should be"),
    ],
)
def test_finished_run_with_a_damaged_model_warns_that_it_trains_again(
    finished_run: Path, damage_run: Callable[[Path], object], phrase: str
) -> None:
    drop_checkpoints(finished_run)
    damage_run(finished_run)
    warnings: list[str] = []
    assert finished_training(finished_run, warnings.append) is None
    [line] = warnings
    assert line.startswith("run.name='run': its model is damaged. The run trains again (")
    assert phrase in line
