"""Training in one process: learns, is reproducible, resumes, and reports exact metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_classifier, new_classifier
from finsent.training.progress import epoch_line
from tests.unit.loop_bench import (
    TRAIN_ROWS,
    VALIDATION_ROWS,
    Bench,
    Recorder,
    distance,
    initial,
    weights,
    without_dropout,
)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(2, "trains a tiny model")]


@pytest.fixture(scope="module")
def bench(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny, tmp_path_factory.mktemp("loop"))


@pytest.fixture(scope="module")
def learned(bench: Bench) -> Recorder:
    """The run that others are compared with."""
    return bench.run(epochs=8)


# --- learning -------------------------------------------------------------------------------------


def test_training_learns_separable_labels(learned: Recorder) -> None:
    first, last = learned.metrics[0], learned.metrics[-1]
    assert first.train_loss == pytest.approx(np.log(3), abs=0.4)  # of uniform probabilities
    assert last.train_loss < 0.5 * first.train_loss
    assert last.accuracy > 0.9
    assert last.macro_f1 > 0.9


def test_same_seed_same_weights_and_another_seed_others(bench: Bench, learned: Recorder) -> None:
    again, other = bench.run(epochs=8), bench.run(epochs=8, seed=8)
    assert distance(weights(again.last), weights(learned.last)) == 0
    assert distance(weights(other.last), weights(learned.last)) > 0.01


@pytest.mark.parametrize("epoch", [1, 4])
def test_resumed_run_ends_as_the_uninterrupted_one(
    bench: Bench, learned: Recorder, epoch: int
) -> None:
    resumed = bench.run(epochs=8, resume=learned.checkpoint(epoch))
    assert [m.epoch for m in resumed.metrics] == list(range(epoch + 1, 9))
    assert distance(weights(resumed.last), weights(learned.last)) == 0
    timed = {"began", "epoch_seconds", "rows_per_second", "tokens_per_second"}
    for resumed_epoch, expected_epoch in zip(resumed.metrics, learned.metrics[epoch:], strict=True):
        assert resumed_epoch.model_dump(exclude=timed) == expected_epoch.model_dump(exclude=timed)
    history = json.loads((resumed.last / "state.json").read_text())["history"]
    assert history == [m.model_dump() for m in learned.metrics[:epoch] + resumed.metrics]


def test_finished_run_has_nothing_left_to_do(bench: Bench, learned: Recorder) -> None:
    assert bench.run(epochs=8, resume=learned.last).metrics == []


# --- what it reports ------------------------------------------------------------------------------


def test_validation_equals_scikit_learn_on_the_saved_model(bench: Bench, learned: Recorder) -> None:
    rows = bench.validation_rows
    for metrics in learned.metrics[::2]:
        model = load_classifier(learned.checkpoint(metrics.epoch) / "model")
        logits = []
        with torch.no_grad():  # a row at a time: no padding
            for i in range(len(rows)):
                logits.append(model(input_ids=rows.batch(np.array([i])).input_ids).logits)
        all_logits, truth = torch.cat(logits), torch.tensor(rows.labels)
        predicted = all_logits.argmax(-1)
        expected = sk.confusion_matrix(truth, predicted, labels=[0, 1, 2])
        assert metrics.validation_confusion == expected.tolist()
        assert metrics.accuracy == pytest.approx(sk.accuracy_score(truth, predicted))
        assert metrics.macro_f1 == pytest.approx(
            sk.f1_score(truth, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
        )
        loss = float(torch.nn.functional.cross_entropy(all_logits, truth))
        assert metrics.validation_loss == pytest.approx(loss, rel=1e-4)


def test_metrics_are_plain_numbers(learned: Recorder) -> None:
    numbers = {
        "macro_f1": float,
        "accuracy": float,
        "validation_loss": float,
        "validation_rows": int,
        "epoch": int,
        "learning_rate": float,
        "train_loss": float,
        "train_rows": int,
        "rows_per_second": float,
        "tokens_per_second": float,
        "padding_share": float,
        "began": float,
        "epoch_seconds": float,
        "validation_confusion": list,
    }
    for number, metrics in enumerate(learned.metrics, 1):
        values = metrics.model_dump()
        assert {key: type(value) for key, value in values.items()} == numbers
        assert json.loads(json.dumps(values)) == values
        assert (metrics.epoch, metrics.train_rows) == (number, TRAIN_ROWS)
        assert metrics.validation_rows == VALIDATION_ROWS
        assert 0 <= metrics.padding_share < 0.3
        assert metrics.tokens_per_second > metrics.rows_per_second > 0


def test_an_epoch_is_a_line_in_the_log(learned: Recorder) -> None:
    seconds = [metrics.epoch_seconds for metrics in learned.metrics]
    line = epoch_line(learned.metrics[7], 8, seconds)
    assert line.startswith(f"epoch 8 of 8: macro-F1 {learned.metrics[7].macro_f1:.3f}, ")
    assert "rows/s" in line


def test_progress_ends_at_the_total(learned: Recorder) -> None:
    rows = [progress.rows for progress in learned.progress]
    assert rows == sorted(rows)
    assert rows[-1] == learned.progress[-1].total_rows == 8 * TRAIN_ROWS
    assert {progress.epoch for progress in learned.progress} == set(range(1, 9))


def test_model_is_saved_in_fp32_with_its_provenance(learned: Recorder) -> None:
    assert {tensor.dtype for tensor in weights(learned.last).values()} == {torch.float32}
    provenance = json.loads((learned.last / "model" / "provenance.json").read_text())
    assert provenance == {"max_length": 64, "epoch": 8}


# --- settings have effect -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def no_dropout(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_dropout(tiny, tmp_path_factory.mktemp("still") / "backbone")


CLIPPED: dict[str, Any] = {"epochs": 1, "weight_decay": 0.0, "max_grad_norm": 1e-16}


def test_gradients_are_clipped_to_the_norm(bench: Bench) -> None:
    """Gradients far below AdamW's epsilon change no weight."""
    assert distance(weights(bench.run(**CLIPPED).last), initial(bench)) < 1e-6
    free = bench.run(**{**CLIPPED, "max_grad_norm": 1.0})
    assert distance(weights(free.last), initial(bench)) > 0.01


def test_weight_decay_shrinks_matrices_only(bench: Bench) -> None:
    before = initial(bench)
    after = weights(bench.run(**{**CLIPPED, "weight_decay": 0.5}).last)
    shrunk = {name for name in before if distance({"": before[name]}, {"": after[name]}) > 1e-6}
    assert shrunk == {name for name, tensor in before.items() if tensor.ndim > 1}
    assert after["classifier.weight"].norm() < before["classifier.weight"].norm()


def test_train_loss_is_the_mean_over_rows(bench: Bench, no_dropout: Path) -> None:
    """The model does not change; one batch of 8 has 1 row."""
    run = bench.run(backbone=no_dropout, **CLIPPED)
    model = new_classifier(Backbone("still", str(no_dropout)), seed=7)
    model.eval()
    batch = bench.train_rows.batch(np.arange(TRAIN_ROWS))
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    loss = float(torch.nn.functional.cross_entropy(logits, batch.labels))
    assert run.metrics[0].train_loss == pytest.approx(loss, rel=1e-4)


def test_dropout_is_on_in_training_and_off_in_validation(bench: Bench, no_dropout: Path) -> None:
    quiet, noisy = bench.run(backbone=no_dropout, **CLIPPED), bench.run(**CLIPPED)
    losses = [(run.metrics[0].train_loss, run.metrics[0].validation_loss) for run in (quiet, noisy)]
    assert losses[0][0] != pytest.approx(losses[1][0], abs=1e-4)
    assert losses[0][1] == pytest.approx(losses[1][1], abs=1e-6)


@pytest.mark.parametrize(("warmup", "halfway"), [(0.0, 0.5), (0.5, 1.0), (0.98, 14 / 26)])
def test_learning_rate_warms_up_for_the_configured_share_of_steps(
    bench: Bench, warmup: float, halfway: float
) -> None:
    """The first epoch is 13 of 26 steps."""
    run = bench.run(learning_rate=0.001, warmup_fraction=warmup)
    rates = [metrics.learning_rate for metrics in run.metrics]
    assert rates == pytest.approx([0.001 * halfway, 0.0])


def test_warm_up_changes_the_weights(bench: Bench) -> None:
    direct, gentle = (bench.run(epochs=1, warmup_fraction=w) for w in (0.0, 0.9))
    assert distance(weights(direct.last), weights(gentle.last)) > 1e-3


def test_bf16_runs_on_a_cpu_close_to_fp32(bench: Bench) -> None:
    rounded, exact = (bench.run(precision=precision) for precision in ("bf16", "fp32"))
    assert {tensor.dtype for tensor in weights(rounded.last).values()} == {torch.float32}
    loss, exact_loss = rounded.metrics[-1].train_loss, exact.metrics[-1].train_loss
    assert loss == pytest.approx(exact_loss, rel=0.15)
    assert loss != exact_loss  # the setting has an effect


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_any_batch_size_sees_every_row(bench: Bench, size: int) -> None:
    run = bench.run(epochs=1, batch_size=size, num_workers=1)
    assert run.metrics[0].train_rows == TRAIN_ROWS
    assert np.isfinite(run.metrics[0].train_loss)
