"""A run that was killed in the middle of an epoch ends as one that was not."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
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
from finsent.training.checkpoint import (
    MODEL,
    best_checkpoint,
    damage,
    epoch_name,
    newest_whole,
    retain,
    saved_checkpoints,
    step_name,
)
from finsent.training.finished import drop_checkpoints, finished_training, record_weights
from finsent.training.outputs import JOURNAL, Outputs, read_journal
from finsent.training.tokens import Batch, TokenRows
from tests.commands import wait_until
from tests.disks import file_limit
from tests.unit.loop_bench import TRAIN_ROWS, Bench, Recorder, distance, rows_of, weights

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "trains a tiny model")]

STEPS = -(-TRAIN_ROWS // 8)  # an epoch
# All that a checkpoint holds beyond the weights, at once.
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


class Watched(TokenRows):
    """Rows that remember which of them were asked for."""

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        self.seen.update(self.keys(rows))
        return super().batch(rows)

    @property
    def seen(self) -> Counter[str]:
        found: Counter[str] = self.__dict__.setdefault("_seen", Counter())
        return found


def watched(tiny: Path) -> Watched:
    rows = rows_of(tiny, TRAIN_ROWS, 0)
    rows.__class__ = Watched
    assert isinstance(rows, Watched)
    return rows


@pytest.fixture(scope="module")
def bench(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny, tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def calm(bench: Bench) -> Recorder:
    """Never killed."""
    return bench.run(**RECIPE)


def untimed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMED} for line in lines]


@pytest.mark.parametrize("step", [5, STEPS + 7])
def test_killed_in_mid_epoch_it_ends_with_the_same_bits(
    bench: Bench, calm: Recorder, tiny: Path, step: int
) -> None:
    assert step % 5 == 0
    rows = watched(tiny)
    killed = bench.run(rows=rows, stop_after=step_name(step), **RECIPE)
    done = len(killed.metrics)
    assert done == step // STEPS
    resumed = bench.run(resume=killed.folder / step_name(step), rows=rows, **RECIPE)
    assert resumed.begun == step
    # Each row of each epoch once, over both processes.
    assert set(rows.seen.values()) == {RECIPE["epochs"]}
    assert len(rows.seen) == TRAIN_ROWS
    assert untimed(killed.metrics + resumed.metrics) == untimed(calm.metrics)
    assert untimed(killed.lines + resumed.lines) == untimed(calm.lines)
    for name in ("model/model.safetensors", "weights.safetensors", "optimizer.safetensors"):
        last = (calm.last / name).read_bytes()
        assert (resumed.last / name).read_bytes() == last, name


def test_a_plain_recipe_too(bench: Bench) -> None:
    undisturbed = bench.run(checkpoint_every_steps=4)
    killed = bench.run(checkpoint_every_steps=4, stop_after=step_name(8))
    resumed = bench.run(checkpoint_every_steps=4, resume=killed.folder / step_name(8))
    assert distance(weights(resumed.last), weights(undisturbed.last)) == 0
    # It has not simply done it all again.
    assert resumed.begun == 8
    assert min(p.name for p in resumed.folder.glob("*step*")) == step_name(12)


def test_progress_and_rates_count_what_was_done_before(bench: Bench, calm: Recorder) -> None:
    resumed = bench.run(resume=calm.folder / step_name(5), **RECIPE)
    assert resumed.metrics[0]["train_rows"] == TRAIN_ROWS
    assert resumed.progress[-1].rows == 3 * TRAIN_ROWS
    assert resumed.progress[-1].step == resumed.progress[-1].total_steps == 3 * STEPS


def test_no_pickle_anywhere(calm: Recorder) -> None:
    files = {file.suffix for file in calm.folder.rglob("*") if file.is_file()}
    assert files <= {".safetensors", ".json", ".txt"}


# --- which checkpoint -----------------------------------------------------------------------------


@pytest.fixture
def run_dir(calm: Recorder, tmp_path: Path) -> Path:
    shutil.copytree(calm.folder, tmp_path / "run")
    return tmp_path / "run"


def test_newest_comes_last_whatever_it_is(run_dir: Path) -> None:
    names = [saved.folder.name for saved in saved_checkpoints(run_dir)]
    assert names == [
        step_name(5),
        step_name(10),
        epoch_name(1),
        step_name(15),
        step_name(20),
        step_name(25),
        epoch_name(2),
        step_name(30),
        step_name(35),
        epoch_name(3),
    ]


def test_a_checkpoint_in_mid_epoch_is_no_candidate_for_the_best(run_dir: Path) -> None:
    best = best_checkpoint(saved_checkpoints(run_dir))
    assert best.step == 0
    scores = [m["macro_f1"] for m in best_checkpoint(saved_checkpoints(run_dir)[-1:]).history]
    assert best.metrics["macro_f1"] == max(scores)


@pytest.fixture
def exported(run_dir: Path) -> Path:
    """A run that has its model."""
    best = best_checkpoint(saved_checkpoints(run_dir))
    shutil.copytree(best.folder / MODEL, run_dir / MODEL)
    (run_dir / "checkpoint_manager_snapshot.json").write_text("{}")  # Ray Train's
    return run_dir


def test_a_finished_run_without_checkpoints_is_still_finished(exported: Path) -> None:
    before = saved_checkpoints(exported)
    assert finished_training(exported) is None
    drop_checkpoints(exported)
    assert {p.name for p in exported.iterdir()} == {MODEL, "trained.json"}
    finished = finished_training(exported)
    assert finished is not None
    assert finished.model_dir == exported / MODEL
    assert finished.best == best_metrics(before[-1].history)
    assert finished.history == before[-1].history
    drop_checkpoints(exported)  # nothing is left to remove
    assert finished_training(exported) == finished


def test_a_finished_run_that_is_calibrated_again_is_still_finished(exported: Path) -> None:
    drop_checkpoints(exported)
    model = exported / MODEL
    names = scaling_tensors(model, [[2, 5, 3]])
    fold(model, names, 2.0)
    assert finished_training(exported) is None  # as if the weights were damaged
    record_weights(model)
    assert finished_training(exported) is not None


def best_metrics(history: list[dict[str, Any]]) -> dict[str, Any]:
    return max(history, key=lambda metrics: (metrics["macro_f1"], metrics["epoch"]))


def test_an_interrupted_removal_leaves_a_finished_run(exported: Path, tmp_path: Path) -> None:
    kept = shutil.copytree(exported / epoch_name(1), tmp_path / "kept")
    drop_checkpoints(exported)
    finished = finished_training(exported)
    kept.rename(exported / epoch_name(1))  # was not removed yet
    assert finished_training(exported) == finished
    drop_checkpoints(exported)
    assert finished_training(exported) == finished


def test_checkpoints_that_cannot_be_read_stay(exported: Path) -> None:
    for state in exported.glob("checkpoint_*/state.json"):
        state.write_text("{")
    before = sorted(exported.iterdir())
    drop_checkpoints(exported)
    assert sorted(exported.iterdir()) == before


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (
            lambda run: (run / MODEL / "model.safetensors").write_bytes(b"x"),
            "model.safetensors: is not as training wrote it",
        ),
        (
            lambda run: (run / MODEL / "tokenizer.json").write_text("{}"),
            "tokenizer.json: is not as training wrote it",
        ),
        (
            lambda run: (run / MODEL / "tokenizer.json").unlink(),
            "tokenizer.json",
        ),
        (lambda run: shutil.rmtree(run / MODEL), "config.json is missing"),
        (lambda run: (run / "trained.json").write_text("{"), "not valid JSON"),
        (lambda run: (run / "trained.json").write_text("[]"), "list indices"),
    ],
)
def test_a_finished_run_whose_model_is_damaged_says_that_it_trains_anew(
    exported: Path, spoil: Callable[[Path], object], part: str
) -> None:
    drop_checkpoints(exported)
    spoil(exported)
    said: list[str] = []
    assert finished_training(exported, said.append) is None
    [line] = said
    assert line.startswith("run.name='run': its model is damaged; it is trained anew (")
    assert part in line


def test_the_best_and_the_two_newest_are_kept(run_dir: Path) -> None:
    best = best_checkpoint(saved_checkpoints(run_dir)).folder.name
    retain(run_dir)
    assert {p.name for p in run_dir.iterdir()} == {best, step_name(35), epoch_name(3)}
    shutil.rmtree(run_dir / epoch_name(3))
    left = {p.name for p in run_dir.iterdir()}
    retain(run_dir)
    assert {p.name for p in run_dir.iterdir()} == left


@pytest.mark.parametrize(("every", "kept"), [(1, [1, 2, 3]), (2, [2, 3]), (5, [3])])
def test_those_of_every_so_many_epochs_are_kept(run_dir: Path, every: int, kept: list[int]) -> None:
    best = best_checkpoint(saved_checkpoints(run_dir)).folder.name
    retain(run_dir, every)
    wanted = {best, step_name(35), *map(epoch_name, kept)}
    assert {p.name for p in run_dir.iterdir()} == wanted


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "harm", "words"),
    [
        ("model/model.safetensors", flip, "model/model.safetensors has another SHA-256"),
        ("optimizer.safetensors", flip, "optimizer.safetensors has another SHA-256"),
        ("weights.safetensors", truncate, "weights.safetensors has"),
        ("model/tokenizer.json", Path.unlink, "model/tokenizer.json is missing"),
        ("optimizer.safetensors", Path.unlink, "is not whole"),
        ("state.json", truncate, "is not whole"),
    ],
)
def test_damaged_newest_is_named_and_the_one_before_is_used(
    run_dir: Path, name: str, harm: Callable[[Path], None], words: str
) -> None:
    assert damage(run_dir / epoch_name(3)) is None
    harm(run_dir / epoch_name(3) / name)
    warnings: list[str] = []
    found = newest_whole(run_dir, warnings.append)
    assert found is not None
    assert found.folder.name == step_name(35)
    [warning] = warnings
    assert epoch_name(3) in warning
    assert words in warning


def test_a_changed_state_is_damage(run_dir: Path) -> None:
    file = run_dir / epoch_name(3) / "state.json"
    state = json.loads(file.read_text())
    state["history"][0]["macro_f1"] = 1.0
    file.write_text(json.dumps(state))
    found = newest_whole(run_dir, lambda _: None)
    assert found is not None
    assert found.folder.name == step_name(35)


def test_when_all_are_damaged_nothing_begins_anew_by_itself(run_dir: Path) -> None:
    for folder in run_dir.iterdir():
        flip(folder / "optimizer.safetensors")
    with pytest.raises(InputError, match=r"every checkpoint is damaged.*another run\.name"):
        newest_whole(run_dir, logging.getLogger().debug)


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) is None


def test_choosing_a_checkpoint_does_without_torch() -> None:
    """Which takes seconds to import, in each trial of a sweep."""
    code = "import finsent.training.outputs, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- writing --------------------------------------------------------------------------------------


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()
    names: list[str] = []

    def slow(out: Path) -> None:
        begun.set()
        assert go.wait(30)
        names.append(out.name)

    def quick(out: Path) -> None:
        names.append(out.name)

    with Outputs(tmp_path) as outputs:
        outputs.save_later("checkpoint_step_00000001", slow)
        assert begun.wait(30)
        assert not (tmp_path / "checkpoint_step_00000001").exists()  # we are here before it is
        # The next one waits: no more than one is in flight.
        second = threading.Thread(
            target=outputs.save_later, args=("checkpoint_step_00000002", quick)
        )
        second.start()
        assert names == []
        go.set()
        second.join(30)
    assert len(names) == 2


def test_an_error_of_the_background_surfaces(tmp_path: Path) -> None:
    def fail(_out: Path) -> None:
        raise OSError(28, "No space left on device")

    with Outputs(tmp_path) as outputs:
        outputs.save_later(step_name(1), fail)
        with pytest.raises(OSError, match="No space"):
            outputs.save_later(step_name(2), lambda _: None)
    with pytest.raises(OSError, match="No space"), Outputs(tmp_path) as outputs:
        outputs.save_later(step_name(1), fail)
    assert [*tmp_path.iterdir()] == []  # nothing half-written


def test_a_full_disk_in_the_background_is_met_at_the_next_line(tmp_path: Path) -> None:
    def save(size: int) -> Callable[[Path], None]:
        return lambda out: save_file({"a": torch.zeros(size)}, out / "weights.safetensors")

    def is_met() -> bool:
        try:
            outputs.log({"kind": "step", "step": 2})
        except DiskError as error:
            assert error.path == tmp_path / step_name(2)
            return True
        return False

    with Outputs(tmp_path) as outputs, file_limit(100_000):
        outputs.save_later(step_name(2), save(100_000))
        wait_until(is_met, 10, "the error of the writer")
        outputs.save_later(step_name(3), save(10))
    assert not [*tmp_path.glob(f"*{step_name(2)}*")]


def test_what_is_written_later_is_of_the_step_it_was_asked_for(
    bench: Bench, calm: Recorder
) -> None:
    """Steps that are made while it is being written do not show in it."""
    delayed: dict[str, Callable[[Path], None]] = {}

    class Late(Recorder):
        def step_done(self, name: str, save: Callable[[Path], None] | None) -> None:
            assert save is not None
            delayed[name] = save

    late = bench.run(hooks=Late, **RECIPE)
    for name, save in delayed.items():
        out = late.folder / name
        out.mkdir()
        save(out)
        for file in ("optimizer.safetensors", "weights.safetensors", "model/model.safetensors"):
            assert (out / file).read_bytes() == (calm.folder / name / file).read_bytes()


def test_journal_of_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    with Outputs(tmp_path) as outputs:
        outputs.started(0)
        for step in (10, 20, 30):
            outputs.log({"kind": "step", "step": step, "loss": 1.0})
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write('{"kind": "st')  # killed while it wrote
    with Outputs(tmp_path) as outputs:
        outputs.started(20)
        outputs.log({"kind": "step", "step": 30, "loss": 0.5})
    found = [(line["step"], line["loss"]) for line in read_journal(tmp_path)]
    assert found == [(10, 1.0), (20, 1.0), (30, 0.5)]
    with Outputs(tmp_path) as outputs:
        outputs.started(0)  # begun anew
    assert read_journal(tmp_path) == []


def test_saved_averages_are_not_the_last_weights(calm: Recorder) -> None:
    from safetensors.torch import load_file

    last = load_file(calm.last / "weights.safetensors")
    assert distance(weights(calm.last), last) > 1e-4
    assert all(torch.isfinite(tensor).all() for tensor in last.values())
