"""Training of a tiny BERT on a real Ray: four calls train in one run directory.

Tests of the loop alone are in `test_torchrun.py`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import ConfigError, InputError
from finsent.evaluation.metrics import scores
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.provenance import DatasetOrigin, Provenance
from finsent.runs import MODEL_DIR
from finsent.training.checkpoint import (
    Checkpoint,
    best_checkpoint,
    epoch_checkpoint_name,
    find_damage,
    list_checkpoints,
    step_checkpoint_name,
)
from finsent.training.config import TrainConfig
from finsent.training.finished_run import TrainResult, drop_checkpoints
from finsent.training.metrics_log import read_steps
from finsent.training.standalone import main, write_spec
from finsent.training.task import Task
from finsent.training.tokens import tokenize
from tests.integration.ranks import run_ranks

EPOCHS, STEPS = 6, 13  # steps an epoch
RECIPE = {
    "epochs": EPOCHS,
    "learning_rate": 5e-3,
    "checkpoint_every_steps": 4,
    "log_every_steps": 2,
}
# The cluster has room for one of at most two workers.
LONGER = {**RECIPE, "epochs": EPOCHS + 1, "num_workers": (1, 2), "cpus_per_worker": 3}
WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}


def rows(count: int, start: int) -> pa.Table:
    labels = [LABELS[i % 3] for i in range(start, start + count)]
    texts = [f"Item {i}: {WORDS[label]} {'again ' * (i % 9)}" for i, label in enumerate(labels)]
    return pa.table(
        {"key": [f"{i:06d}" for i in range(start, start + count)], "text": texts, "label": labels}
    )


def tokens(table: pa.Table, tiny: Path) -> pa.Table:
    return tokenize(table, str(tiny), None, 64)


def task(tiny: Path, **settings: object) -> Task:
    recipe = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "seed": 7, **settings}
    return Task(TrainConfig(**recipe), Backbone("tiny", str(tiny)), Provenance(max_length=64))


def weights(model_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(model_dir / "model.safetensors")


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=1e-5, msg=name)


class LogRecorder(logging.Handler):
    """Records log messages."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Killer(threading.Thread):
    """Kills one of a run's workers when the run has a checkpoint."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._run_dir = run_dir
        self.killed: list[int] = []

    def run(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not self.killed:
            if [*self._run_dir.glob("checkpoint_*/state.json")]:
                self._kill_one()
            time.sleep(0.01)  # polling a directory, with the deadline above

    def _kill_one(self) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # an earlier process
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    process.kill()
                    self.killed.append(process.pid)
                    return


def damage_checkpoints(run_dir: Path, epochs: int) -> None:
    """Damage the newest checkpoint, as a bad disk does, and add an incomplete one."""
    newest = run_dir / epoch_checkpoint_name(epochs)
    shutil.copytree(newest, run_dir / epoch_checkpoint_name(epochs + 1))
    (run_dir / epoch_checkpoint_name(epochs + 1) / "optimizer.safetensors").unlink()
    with (newest / "optimizer.safetensors").open("r+b") as stream:
        stream.truncate(1000)


@dataclass
class TrainedRun:
    """A run directory that four calls have trained in, one after another.

    First with two workers, of which one was killed. Then its newest checkpoint was damaged, and
    Ray's own records; one call with a bound on the loss failed. Then with room for one worker and
    an epoch more, and at last with nothing left to do.
    """

    run_dir: Path
    killed: list[int]
    first: TrainResult
    first_model: Path
    first_checkpoints: list[str]
    first_steps: list[int]
    refusal: str
    warnings: list[str]
    longer: TrainResult
    done: TrainResult


def make_splits(tiny: Path) -> dict[str, pa.Table]:
    """97 and 31 rows: neither divides by two workers, nor the last batch."""
    return {"train": tokens(rows(97, 0), tiny), "validation": tokens(rows(31, 97), tiny)}


@pytest.fixture(scope="module")
def splits(tiny: Path) -> dict[str, pa.Table]:
    return make_splits(tiny)


def steps_of(run_dir: Path) -> list[int]:
    return [line.step for line in read_steps(run_dir)]


@pytest.fixture(scope="module")
def trained_run(
    tiny: Path, splits: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TrainedRun]:
    import ray.data

    from finsent.training.ray_trainer import fit_tokenized

    folder = tmp_path_factory.mktemp("life")
    run_dir = folder / "run"
    datasets = {name: ray.data.from_arrow(table).materialize() for name, table in splits.items()}
    log = LogRecorder()
    logging.getLogger("finsent").addHandler(log)
    killer = Killer(run_dir)
    killer.start()
    first_run = fit_tokenized(task(tiny, **RECIPE), datasets, run_dir)
    killer.join()
    shutil.copytree(first_run.model_dir, folder / "first")
    names = [path.name for path in run_dir.glob("checkpoint_*_*[0-9]")]
    steps = steps_of(run_dir)

    (run_dir / "checkpoint_manager_snapshot.json").write_text('{"ray_version"')
    damage_checkpoints(run_dir, EPOCHS)
    with pytest.raises(InputError) as refused:
        bounded = task(tiny, **{**RECIPE, "num_workers": 1, "max_loss": 1e-6})
        fit_tokenized(bounded, datasets, run_dir)
    longer = fit_tokenized(task(tiny, **LONGER), datasets, run_dir)
    (run_dir / "checkpoint_manager_snapshot.json").unlink()
    done = fit_tokenized(task(tiny, **{**LONGER, "num_workers": 1}), datasets, run_dir)
    logging.getLogger("finsent").removeHandler(log)
    yield TrainedRun(
        run_dir,
        killer.killed,
        first_run,
        folder / "first",
        names,
        steps,
        str(refused.value),
        log.lines,
        longer,
        done,
    )


@pytest.fixture(scope="module")
def uninterrupted(
    tiny: Path, splits: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Checkpoint]:
    """Both trainings without Ray and kill: the best and the last checkpoint."""
    folder = tmp_path_factory.mktemp("calm")
    run_ranks(2, main, write_spec(folder, task(tiny, **RECIPE), splits))
    first_dir = folder.with_name("calm-first")
    shutil.copytree(folder, first_dir)
    damage_checkpoints(folder, EPOCHS)
    run_ranks(1, main, write_spec(folder, task(tiny, **LONGER), splits))
    return best_checkpoint(list_checkpoints(first_dir)), list_checkpoints(folder)[-1]


def test_two_workers_count_every_row_once(trained_run: TrainedRun) -> None:
    result = trained_run.first
    assert [m.validation_rows for m in result.history] == [31] * EPOCHS
    assert [m.train_rows for m in result.history] == [97] * EPOCHS
    assert result.best.macro_f1 == max(m.macro_f1 for m in result.history) > 0.9
    assert result.history[-1].train_loss < 0.5 * result.history[0].train_loss
    assert not [*trained_run.first_model.rglob("*.pt"), *trained_run.first_model.rglob("*.bin")]
    assert not [*trained_run.run_dir.rglob("*.pt"), *trained_run.run_dir.rglob("*.bin")]
    # The best and the two newest checkpoints, no more.
    assert len(trained_run.first_checkpoints) in (2, 3)


def test_the_published_model_scores_what_training_reported(trained_run: TrainedRun) -> None:
    """Ray trained with two processes, the engine is one."""
    engine = Engine(trained_run.first_model, EngineConfig())
    held_out = rows(31, 97)
    predicted = [LABELS.index(p.label) for p in engine.classify(held_out["text"].to_pylist())]
    truth = [LABELS.index(label) for label in held_out["label"].to_pylist()]
    matrix = torch.zeros(3, 3, dtype=torch.int64)
    for t, p in zip(truth, predicted, strict=True):
        matrix[t, p] += 1
    best = trained_run.first.best
    assert best.validation_confusion == matrix.tolist()
    assert scores(matrix.numpy()).macro_f1 == pytest.approx(best.macro_f1)
    assert json.loads((trained_run.first_model / "provenance.json").read_text())["max_length"] == 64


def test_a_killed_worker_costs_nothing_but_time(
    trained_run: TrainedRun, uninterrupted: tuple[Checkpoint, Checkpoint]
) -> None:
    expected_best, _ = uninterrupted
    assert trained_run.killed
    assert [m.epoch for m in trained_run.first.history] == [*range(1, EPOCHS + 1)]
    assert trained_run.first.best.epoch == expected_best.epoch
    for metrics, expected in zip(trained_run.first.history, expected_best.history, strict=False):
        assert metrics.validation_confusion == expected.validation_confusion
    assert_same(weights(trained_run.first_model), weights(expected_best.folder / MODEL_DIR))
    assert trained_run.first_steps == sorted(
        {*range(2, STEPS * EPOCHS + 1, 2), *range(STEPS, STEPS * EPOCHS + 1, STEPS)}
    )


def test_damaged_latest_checkpoint_is_named_and_the_one_before_is_used(
    trained_run: TrainedRun, uninterrupted: tuple[Checkpoint, Checkpoint]
) -> None:
    """The checkpoint before is in the middle of the last epoch."""
    last = trained_run.run_dir / epoch_checkpoint_name(EPOCHS)
    text = "\n".join(trained_run.warnings)
    assert f"{str(last)!r} is damaged (optimizer.safetensors has 1000 bytes" in text
    assert str(trained_run.run_dir / epoch_checkpoint_name(EPOCHS + 1)) in text
    assert trained_run.longer.history[: EPOCHS - 1] == trained_run.first.history[: EPOCHS - 1]
    assert (
        trained_run.longer.history[EPOCHS - 1].began > trained_run.first.history[EPOCHS - 1].began
    )
    assert [m.train_rows for m in trained_run.longer.history] == [97] * (EPOCHS + 1)
    assert (
        find_damage(trained_run.run_dir / epoch_checkpoint_name(EPOCHS + 1)) is None
    )  # written anew
    assert not last.exists() or find_damage(last) is None
    assert_same(
        weights(trained_run.run_dir / epoch_checkpoint_name(EPOCHS + 1) / MODEL_DIR),
        weights(uninterrupted[1].folder / MODEL_DIR),
    )


def test_diverged_run_ends_at_once_with_one_line(trained_run: TrainedRun) -> None:
    step = step_checkpoint_name((STEPS * EPOCHS - 1) // 4 * 4)
    assert f"above train.max_loss=1e-06; last good checkpoint: {step}" in trained_run.refusal
    assert "\n" not in trained_run.refusal


def test_same_run_name_resumes(trained_run: TrainedRun) -> None:
    """The run has more epochs, and fewer workers: the cluster has no room for two."""
    assert [m.epoch for m in trained_run.longer.history] == [*range(1, EPOCHS + 2)]
    # Finished epochs are not trained again: the times at which they began stay.
    assert trained_run.longer.history[: EPOCHS - 1] == trained_run.first.history[: EPOCHS - 1]
    assert "train: 1 of at most 2 worker(s) for now" in trained_run.warnings
    assert trained_run.longer.best.macro_f1 == max(m.macro_f1 for m in trained_run.longer.history)
    best = trained_run.run_dir / epoch_checkpoint_name(trained_run.longer.best.epoch)
    assert_same(weights(trained_run.longer.model_dir), weights(best / MODEL_DIR))
    assert steps_of(trained_run.run_dir) == sorted(set(steps_of(trained_run.run_dir)))
    assert (trained_run.run_dir / "training.png").stat().st_size > 10_000


def test_finished_run_starts_no_workers(trained_run: TrainedRun) -> None:
    assert (trained_run.done.best, trained_run.done.history) == (
        trained_run.longer.best,
        trained_run.longer.history,
    )
    assert_same(weights(trained_run.done.model_dir), weights(trained_run.longer.model_dir))
    # Ray Train, which records checkpoints, has not started.
    assert not (trained_run.run_dir / "checkpoint_manager_snapshot.json").exists()


def test_a_finished_run_without_checkpoints_is_not_trained_again(
    trained_run: TrainedRun, tiny: Path, tmp_path: Path
) -> None:
    from finsent.training.ray_trainer import fit

    run = Path(shutil.copytree(trained_run.run_dir, tmp_path / "run"))
    drop_checkpoints(run)
    assert not [*run.glob("checkpoint_*")]
    recipe = replace(task(tiny, epochs=4), provenance=Provenance(max_length=64, config={}))
    absent = DatasetVersion(tmp_path / "absent")  # which is not read
    result = fit(recipe, absent, run)
    assert (result.best, result.history) == (trained_run.done.best, trained_run.done.history)
    assert result.model_dir == run / MODEL_DIR


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_workers": 64, "batch_size": 64}, ["train.num_workers=64", "65 CPUs", "has 4"]),
        ({"cpus_per_worker": 2}, ["5 CPUs", "has 4"]),
        ({"use_gpu": "yes"}, ["train.use_gpu='yes'", "2 GPUs", "train.use_gpu=no"]),
    ],
)
def test_too_large_run_is_refused_at_once(
    tiny: Path, tmp_path: Path, settings: dict[str, object], words: list[str]
) -> None:
    from finsent.training.ray_trainer import fit_tokenized

    if settings.get("use_gpu") and torch.cuda.is_available():
        pytest.skip("has a GPU")
    with pytest.raises(InputError) as caught:
        fit_tokenized(task(tiny, **settings), {}, tmp_path / "run")
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_run_resumes_only_with_its_own_task(tiny: Path, tmp_path: Path) -> None:
    from finsent.training.same_task import check_same_task

    def of(version: str, **settings: object) -> Task:
        plain = task(tiny, **settings)
        recipe = plain.config.model_dump(mode="json")
        dataset = DatasetOrigin(name="default", version=version)
        provenance = Provenance(max_length=64, dataset=dataset, config=recipe)
        return Task(plain.config, plain.backbone, provenance)

    check_same_task(of("aaa"), tmp_path)
    check_same_task(of("bbb"), tmp_path)  # nothing was trained yet
    (tmp_path / "trained.json").touch()  # its checkpoints were removed
    check_same_task(of("bbb", num_workers=1), tmp_path)
    with pytest.raises(ConfigError, match=r"dataset\.version='bbb', now dataset\.version='ccc'"):
        check_same_task(of("ccc"), tmp_path)
    with pytest.raises(ConfigError, match=r"config\.epochs=2, now config\.epochs=9"):
        check_same_task(of("bbb", epochs=9), tmp_path)
