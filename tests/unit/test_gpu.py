"""The loop on a GPU; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.loop_bench import Bench, distance, rows_of, weights, without_dropout

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

ROWS = 1000


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Bench:
    return Bench(tiny, tmp_path, "cuda")


@pytest.fixture
def all_memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_same_weights_as_on_a_cpu(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    no_dropout = without_dropout(tiny, tmp_path / "still")
    on_cpu = Bench(tiny, tmp_path / "cpu").run(backbone=no_dropout)
    on_gpu = bench.run(backbone=no_dropout, precision="fp32")
    assert distance(weights(on_cpu.last), weights(on_gpu.last)) < 1e-3


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_half_precision_learns(bench: Bench, precision: str) -> None:
    run = bench.run(precision=precision, epochs=12)
    assert run.metrics[-1].train_loss < 0.5 * run.metrics[0].train_loss
    assert max(m.macro_f1 for m in run.metrics) > 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_run_resumed_in_mid_epoch_equals_an_uninterrupted_one(bench: Bench, precision: str) -> None:
    settings: dict[str, Any] = {
        "deterministic": True,
        "precision": precision,
        "checkpoint_every_steps": 5,
    }
    uninterrupted = bench.run(**settings)
    again = bench.run(**settings)
    assert distance(weights(uninterrupted.last), weights(again.last)) == 0
    stopped = bench.run(stop_after="checkpoint_step_00000015", **settings)
    resumed = bench.run(resume=stopped.folder / "checkpoint_step_00000015", **settings)
    assert distance(weights(uninterrupted.last), weights(resumed.last)) == 0


@pytest.mark.usefixtures("all_memory")
def test_too_little_memory_halves_the_micro_batches(
    tiny: Path, bench: Bench, tmp_path: Path
) -> None:
    no_dropout = without_dropout(tiny, tmp_path / "still")
    rows = rows_of(tiny, ROWS, 0)
    settings: dict[str, Any] = {"batch_size": ROWS, "epochs": 2, "precision": "fp32"}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    plenty = bench.run(rows=rows, backbone=no_dropout, **settings)
    assert not plenty.notes
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.6 * peak / total_bytes)
    scarce = bench.run(rows=rows, backbone=no_dropout, **settings)
    assert "out of memory with micro-batches of 1000 rows" in scarce.notes[0]
    assert "GiB free" in scarce.notes[0]
    assert distance(weights(plenty.last), weights(scarce.last)) < 1e-4


def test_gradient_checkpointing(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    no_dropout = without_dropout(tiny, tmp_path / "still")
    plain = bench.run(backbone=no_dropout, precision="fp32")
    saving = bench.run(backbone=no_dropout, precision="fp32", gradient_checkpointing=True)
    assert distance(weights(plain.last), weights(saving.last)) < 1e-4
