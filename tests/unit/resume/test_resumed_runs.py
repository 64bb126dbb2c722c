"""A training that is killed and resumes equals an uninterrupted one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from finsent.records import Record
from finsent.training.checkpoint import (
    step_checkpoint_name,
)
from finsent.training.checkpoint_writer import WriteState
from finsent.training.metrics_log import METRICS_FILE, MetricsLog, read_metrics, read_steps
from finsent.training.tokens import Batch, TokenizedRows
from tests.unit.loop_bench import TRAIN_ROWS, Bench, Recorder, distance, rows_of, weights
from tests.unit.metrics import step_line
from tests.unit.resume.recipes import RECIPE

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "trains a tiny model")]


STEPS = -(-TRAIN_ROWS // 8)  # an epoch


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


def test_saved_averages_are_not_the_last_weights(uninterrupted: Recorder) -> None:
    from safetensors.torch import load_file

    last = load_file(uninterrupted.last / "weights.safetensors")
    assert distance(weights(uninterrupted.last), last) > 1e-4
    assert all(torch.isfinite(tensor).all() for tensor in last.values())
