"""A run that is killed and resumes equals an uninterrupted run; which checkpoints it uses."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.modeling.folding import fold, scaling_tensors
from finsent.records import Record
from finsent.training.callbacks import WritingCallbacks
from finsent.training.checkpoint import (
    MODEL_DIR,
    best_checkpoint,
    epoch_checkpoint_name,
    find_damage,
    latest_valid,
    list_checkpoints,
    prune,
    step_checkpoint_name,
)
from finsent.training.checkpoint_writer import CheckpointWriter, WriteState
from finsent.training.finished_run import drop_checkpoints, finished_training, update_weights_digest
from finsent.training.metrics import EpochMetrics
from finsent.training.metrics_log import METRICS_FILE, MetricsLog, read_metrics, read_steps
from finsent.training.tokens import Batch, TokenizedRows
from tests.commands import wait_until
from tests.disks import file_limit
from tests.unit.loop_bench import TRAIN_ROWS, Bench, Recorder, distance, rows_of, weights
from tests.unit.metrics import step_line

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "trains a tiny model")]

STEPS = -(-TRAIN_ROWS // 8)  # an epoch
# A recipe with all that a checkpoint stores next to the weights.
RECIPE: dict[str, Any] = {
    "epochs": 3,
    "checkpoint_every_steps": 5,
    "log_every_steps": 3,
    "ema_decay": 0.9,
    "precision": "fp16",
    "schedule": "cosine",
    "layer_decay": 0.8,
    "unfreeze_epochs": 1.5,
    "accumulation_steps": 2,
    "label_smoothing": 0.1,
}
TIMED = {"began", "epoch_seconds", "rows_per_second", "tokens_per_second"}


class CountingRows(TokenizedRows):
    """Rows that count how often each is read."""

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        self.reads.update(self.keys(rows))
        return super().batch(rows)

    @property
    def reads(self) -> Counter[str]:
        reads: Counter[str] = self.__dict__.setdefault("_reads", Counter())
        return reads


def counting_rows(tiny: Path) -> CountingRows:
    rows = rows_of(tiny, TRAIN_ROWS, 0)
    rows.__class__ = CountingRows
    assert isinstance(rows, CountingRows)
    return rows


@pytest.fixture(scope="module")
def bench(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny, tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def uninterrupted(bench: Bench) -> Recorder:
    """A run that was never killed."""
    return bench.run(**RECIPE)


def untimed(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [record.model_dump(exclude=TIMED) for record in records]


@pytest.mark.parametrize("step", [5, STEPS + 7])
def test_resumed_run_is_bit_identical_to_an_uninterrupted_one(
    bench: Bench, uninterrupted: Recorder, tiny: Path, step: int
) -> None:
    assert step % 5 == 0
    rows = counting_rows(tiny)
    killed = bench.run(rows=rows, stop_after=step_checkpoint_name(step), **RECIPE)
    done = len(killed.metrics)
    assert done == step // STEPS
    resumed = bench.run(resume=killed.folder / step_checkpoint_name(step), rows=rows, **RECIPE)
    assert resumed.start_step == step
    # Each row of each epoch is read once, over both runs.
    assert set(rows.reads.values()) == {RECIPE["epochs"]}
    assert len(rows.reads) == TRAIN_ROWS
    assert untimed(killed.metrics + resumed.metrics) == untimed(uninterrupted.metrics)
    assert untimed(killed.lines + resumed.lines) == untimed(uninterrupted.lines)
    for name in ("model/model.safetensors", "weights.safetensors", "optimizer.safetensors"):
        last = (uninterrupted.last / name).read_bytes()
        assert (resumed.last / name).read_bytes() == last, name


def test_resumed_run_with_a_plain_recipe_is_bit_identical(bench: Bench) -> None:
    uninterrupted = bench.run(checkpoint_every_steps=4)
    killed = bench.run(checkpoint_every_steps=4, stop_after=step_checkpoint_name(8))
    resumed = bench.run(checkpoint_every_steps=4, resume=killed.folder / step_checkpoint_name(8))
    assert distance(weights(resumed.last), weights(uninterrupted.last)) == 0
    # It did not start from the beginning.
    assert resumed.start_step == 8
    assert min(p.name for p in resumed.folder.glob("*step*")) == step_checkpoint_name(12)


def test_resumed_progress_and_rates_include_earlier_steps(
    bench: Bench, uninterrupted: Recorder
) -> None:
    resumed = bench.run(resume=uninterrupted.folder / step_checkpoint_name(5), **RECIPE)
    assert resumed.metrics[0].train_rows == TRAIN_ROWS
    assert resumed.progress[-1].rows == 3 * TRAIN_ROWS
    assert resumed.progress[-1].step == resumed.progress[-1].total_steps == 3 * STEPS


def test_checkpoints_contain_no_pickle(uninterrupted: Recorder) -> None:
    files = {file.suffix for file in uninterrupted.folder.rglob("*") if file.is_file()}
    assert files <= {".safetensors", ".json", ".txt"}


# --- which checkpoint -----------------------------------------------------------------------------


@pytest.fixture
def run_dir(uninterrupted: Recorder, tmp_path: Path) -> Path:
    shutil.copytree(uninterrupted.folder, tmp_path / "run")
    return tmp_path / "run"


def test_checkpoints_are_listed_by_step_the_newest_last(run_dir: Path) -> None:
    names = [saved.folder.name for saved in list_checkpoints(run_dir)]
    assert names == [
        step_checkpoint_name(5),
        step_checkpoint_name(10),
        epoch_checkpoint_name(1),
        step_checkpoint_name(15),
        step_checkpoint_name(20),
        step_checkpoint_name(25),
        epoch_checkpoint_name(2),
        step_checkpoint_name(30),
        step_checkpoint_name(35),
        epoch_checkpoint_name(3),
    ]


def test_best_checkpoint_is_at_the_end_of_an_epoch(run_dir: Path) -> None:
    best = best_checkpoint(list_checkpoints(run_dir))
    assert best.step == 0
    scores = [m.macro_f1 for m in best_checkpoint(list_checkpoints(run_dir)[-1:]).history]
    assert best.metrics.macro_f1 == max(scores)


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
    kept = shutil.copytree(finished_run / epoch_checkpoint_name(1), tmp_path / "kept")
    drop_checkpoints(finished_run)
    finished = finished_training(finished_run)
    kept.rename(finished_run / epoch_checkpoint_name(1))  # was not removed yet
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
    ("damage_run", "part"),
    [
        (
            lambda run: (run / MODEL_DIR / "model.safetensors").write_bytes(b"x"),
            "model.safetensors: is not as training wrote it",
        ),
        (
            lambda run: (run / MODEL_DIR / "tokenizer.json").write_text("{}"),
            "tokenizer.json: is not as training wrote it",
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
    finished_run: Path, damage_run: Callable[[Path], object], part: str
) -> None:
    drop_checkpoints(finished_run)
    damage_run(finished_run)
    warnings: list[str] = []
    assert finished_training(finished_run, warnings.append) is None
    [line] = warnings
    assert line.startswith("run.name='run': its model is damaged. The run trains again (")
    assert part in line


def test_the_best_and_the_two_newest_are_kept(run_dir: Path) -> None:
    best = best_checkpoint(list_checkpoints(run_dir)).folder.name
    prune(run_dir)
    assert {p.name for p in run_dir.iterdir()} == {
        best,
        step_checkpoint_name(35),
        epoch_checkpoint_name(3),
    }
    shutil.rmtree(run_dir / epoch_checkpoint_name(3))
    left = {p.name for p in run_dir.iterdir()}
    prune(run_dir)
    assert {p.name for p in run_dir.iterdir()} == left


@pytest.mark.parametrize(("every", "kept"), [(1, [1, 2, 3]), (2, [2, 3]), (5, [3])])
def test_checkpoints_of_every_nth_epoch_are_kept(
    run_dir: Path, every: int, kept: list[int]
) -> None:
    best = best_checkpoint(list_checkpoints(run_dir)).folder.name
    prune(run_dir, every)
    wanted = {best, step_checkpoint_name(35), *map(epoch_checkpoint_name, kept)}
    assert {p.name for p in run_dir.iterdir()} == wanted


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "damage_file", "words"),
    [
        ("model/model.safetensors", flip, "model/model.safetensors has another SHA-256"),
        ("optimizer.safetensors", flip, "optimizer.safetensors has another SHA-256"),
        ("weights.safetensors", truncate, "weights.safetensors has"),
        ("model/tokenizer.json", Path.unlink, "model/tokenizer.json is missing"),
        ("optimizer.safetensors", Path.unlink, "is incomplete"),
        ("state.json", truncate, "is incomplete"),
    ],
)
def test_damaged_checkpoint_is_named_and_the_one_before_is_used(
    run_dir: Path, name: str, damage_file: Callable[[Path], None], words: str
) -> None:
    assert find_damage(run_dir / epoch_checkpoint_name(3)) is None
    damage_file(run_dir / epoch_checkpoint_name(3) / name)
    warnings: list[str] = []
    latest = latest_valid(run_dir, warnings.append)
    assert latest is not None
    assert latest.folder.name == step_checkpoint_name(35)
    [warning] = warnings
    assert epoch_checkpoint_name(3) in warning
    assert words in warning


def test_a_changed_state_is_damage(run_dir: Path) -> None:
    file = run_dir / epoch_checkpoint_name(3) / "state.json"
    state = json.loads(file.read_text())
    state["history"][0]["macro_f1"] = 1.0
    file.write_text(json.dumps(state))
    latest = latest_valid(run_dir, lambda _: None)
    assert latest is not None
    assert latest.folder.name == step_checkpoint_name(35)


def test_run_with_only_damaged_checkpoints_is_refused(run_dir: Path) -> None:
    for folder in run_dir.iterdir():
        flip(folder / "optimizer.safetensors")
    with pytest.raises(InputError, match=r"every checkpoint is damaged.*another run\.name"):
        latest_valid(run_dir, logging.getLogger().debug)


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert latest_valid(tmp_path) is None


def test_choosing_a_checkpoint_does_not_import_torch() -> None:
    """PyTorch takes seconds to import, in each trial of a sweep."""
    code = "import finsent.training.checkpoint_writer, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- writing --------------------------------------------------------------------------------------


def test_checkpoint_is_written_in_the_background(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()
    names: list[str] = []

    def slow(out: Path) -> None:
        begun.set()
        assert go.wait(30)
        names.append(out.name)

    def quick(out: Path) -> None:
        names.append(out.name)

    with CheckpointWriter(tmp_path) as writer:
        writer.write_async("checkpoint_step_00000001", slow)
        assert begun.wait(30)
        assert not (
            tmp_path / "checkpoint_step_00000001"
        ).exists()  # `write_async` has returned before
        # The next write waits: only one runs at a time.
        second = threading.Thread(
            target=writer.write_async, args=("checkpoint_step_00000002", quick)
        )
        second.start()
        assert names == []
        go.set()
        second.join(30)
    assert len(names) == 2


def test_error_of_a_background_write_is_raised(tmp_path: Path) -> None:
    def fail(_out: Path) -> None:
        raise OSError(28, "No space left on device")

    with CheckpointWriter(tmp_path) as writer:
        writer.write_async(step_checkpoint_name(1), fail)
        with pytest.raises(OSError, match="No space"):
            writer.write_async(step_checkpoint_name(2), lambda _: None)
    with pytest.raises(OSError, match="No space"), CheckpointWriter(tmp_path) as writer:
        writer.write_async(step_checkpoint_name(1), fail)
    assert [*tmp_path.iterdir()] == []  # nothing half-written


def test_full_disk_in_the_background_is_raised_at_the_next_metrics_line(tmp_path: Path) -> None:
    def save(size: int) -> Callable[[Path], None]:
        return lambda out: save_file({"a": torch.zeros(size)}, out / "weights.safetensors")

    def is_raised() -> bool:
        try:
            callbacks.on_metrics(step_line(2, 1.0))
        except DiskError as error:
            assert error.path == tmp_path / step_checkpoint_name(2)
            return True
        return False

    with CheckpointWriter(tmp_path) as writer, file_limit(100_000):
        callbacks = WritingCallbacks(tmp_path, writer)
        writer.write_async(step_checkpoint_name(2), save(100_000))
        wait_until(is_raised, 60, "the error of the writer")
        writer.write_async(step_checkpoint_name(3), save(10))
    assert not [*tmp_path.glob(f"*{step_checkpoint_name(2)}*")]


def test_delayed_write_stores_the_state_of_its_own_step(
    bench: Bench, uninterrupted: Recorder
) -> None:
    """Steps during the write do not change what is written."""
    delayed: dict[str, Callable[[Path], None]] = {}

    class DelayedWrites(Recorder):
        def on_checkpoint(self, name: str, write_state: WriteState | None) -> None:
            assert write_state is not None
            delayed[name] = write_state

    run = bench.run(callbacks=DelayedWrites, **RECIPE)
    for name, save in delayed.items():
        out = run.folder / name
        out.mkdir()
        save(out)
        for file in ("optimizer.safetensors", "weights.safetensors", "model/model.safetensors"):
            assert (out / file).read_bytes() == (uninterrupted.folder / name / file).read_bytes()


def test_metrics_of_a_resumed_run_have_each_step_once(tmp_path: Path) -> None:
    metrics_log = MetricsLog(tmp_path)
    metrics_log.start(0)
    for step in (10, 20, 30):
        metrics_log.append(step_line(step, 1.0))
    with (tmp_path / METRICS_FILE).open("a") as stream:
        stream.write('{"kind": "st')  # killed while it wrote
    resumed = MetricsLog(tmp_path)
    resumed.start(20)
    resumed.append(step_line(30, 0.5))
    steps = [(line.step, line.loss) for line in read_steps(tmp_path)]
    assert steps == [(10, 1.0), (20, 1.0), (30, 0.5)]
    MetricsLog(tmp_path).start(0)  # started again
    assert read_metrics(tmp_path) == []


def test_invalid_metrics_line_is_named(tmp_path: Path) -> None:
    metrics_log = MetricsLog(tmp_path)
    metrics_log.start(0)
    metrics_log.append(step_line(10, 1.0))
    with (tmp_path / METRICS_FILE).open("a") as stream:
        stream.write('{"kind": "step", "step": "ten"}\n')
    with pytest.raises(
        InputError, match=r"metrics\.jsonl: line 2: step\.step: .* another run\.name"
    ):
        read_metrics(tmp_path)


def test_saved_averages_are_not_the_last_weights(uninterrupted: Recorder) -> None:
    from safetensors.torch import load_file

    last = load_file(uninterrupted.last / "weights.safetensors")
    assert distance(weights(uninterrupted.last), last) > 1e-4
    assert all(torch.isfinite(tensor).all() for tensor in last.values())
