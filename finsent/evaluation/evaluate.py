"""Measure a model and baselines on labeled rows."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finsent.data.config import DataConfig, NearConfig, SourceConfig
from finsent.data.labeled import read_labeled
from finsent.data.sources.files import find_sources
from finsent.errors import InputError
from finsent.evaluation import baselines
from finsent.evaluation.abstention import risk_coverage, selective
from finsent.evaluation.behavior.run import run_suite
from finsent.evaluation.behavior.suite import Suite
from finsent.evaluation.behavior.suite_files import read_suite
from finsent.evaluation.bootstrap import intervals
from finsent.evaluation.calibration import label_ids
from finsent.evaluation.config import SHIPPED, EvaluateConfig
from finsent.evaluation.metrics import Answers
from finsent.evaluation.slices import agreement_levels, slices, wilson
from finsent.evaluation.training_overlap import Overlap, TrainingRows, find_overlap
from finsent.inference.engine import Engine, softmax
from finsent.inference.truncation import count_truncation
from finsent.inference.truncation_record import TruncationRecord
from finsent.labels import LABELS
from finsent.metrics_record import (
    METRICS_FILE,
    Abstention,
    CalibrationEffect,
    CalibrationOrigin,
    EvaluationMetrics,
    Mistake,
    NoiseCeiling,
    OverlapFigures,
    Promise,
    StoredMetrics,
    StoredScores,
    UnseenScores,
)
from finsent.modeling.calibration import CalibrationFit
from finsent.progress import progress_bar

_MAX_MISTAKES = 50


def evaluate(
    engine: Engine,
    rows: pa.Table,
    train: pa.Table | None,
    seen: TrainingRows | None,
    config: EvaluateConfig,
    noise_ceiling: NoiseCeiling | None = None,
    near: NearConfig | None = None,
) -> EvaluationMetrics:
    """Measure the engine, and baselines where training rows are given.

    Args:
        rows: with columns `key`, `text` and `label`, optionally `source` and `row`.
        train: rows to fit the baselines on, with `text` and `label`; None: no baselines.
        seen: rows that the model was trained on; None: the model was trained outside finsent.
        noise_ceiling: of the dataset's manifest.
        near: how near copies of training rows are found; None: the defaults.

    Returns:
        The figures, without the keys of `EvaluatedModel`, which the caller knows.

    Raises:
        InputError: the behavior suite is faulty, or the model's answers are not numbers.
    """
    suite = _suite(config)
    texts, truth = rows["text"].to_pylist(), label_ids(rows)
    logits, truncation, seconds = _run(engine, texts)
    engine.check_numbers(logits)
    answers = Answers(truth, engine.calibrated(engine.fold_labels(logits)))
    before = Answers(truth, _uncalibrated(engine, logits))
    overlap = find_overlap(rows, seen or TrainingRows(), near or NearConfig())
    counts = overlap.counts()
    return EvaluationMetrics(
        **dict(answers.measure()),
        intervals=intervals(answers, config.bootstrap, config.seed),
        noise_ceiling=noise_ceiling,
        baselines={} if train is None else _measure_baselines(train, texts, truth),
        calibration=_calibration(engine, before, answers),
        reliability=answers.reliability(),
        reliability_before=before.reliability(),
        abstention=_abstention(engine, answers),
        slices=slices(rows, truth, answers.probabilities),
        agreement=agreement_levels(rows, truth, answers.predicted),
        behavior=run_suite(suite, engine.probabilities) if suite else None,
        seen_in_training=counts.rows,
        overlap=OverlapFigures(**dict(counts), unseen=_unseen(answers, overlap, config)),
        truncation=truncation,
        rows_per_second=len(texts) / seconds,
        mistakes=_mistakes(rows, answers),
    )


def _measure_baselines(
    train: pa.Table, texts: list[str], truth: npt.NDArray[np.int64]
) -> dict[str, StoredScores]:
    """Return the figures of each baseline by name.

    Args:
        train: rows to fit the baselines on.
        truth: label ids of the texts.
    """
    labels = label_ids(train)
    probabilities = {
        "majority": baselines.majority(labels, len(texts)),
        "vader": baselines.vader(texts),
        "tfidf_logreg": baselines.tfidf(train["text"].to_pylist(), labels, texts),
    }
    return {name: Answers(truth, values).measure() for name, values in probabilities.items()}


def _run(
    engine: Engine, texts: list[str]
) -> tuple[npt.NDArray[np.float32], TruncationRecord, float]:
    """Return logits of the model's own labels, the truncation of the texts, and the seconds."""
    started = time.perf_counter()
    with progress_bar(
        "evaluate", "row", len(texts), terminal_seconds=0.2, log_seconds=10.0
    ) as progress:
        encoded = engine.encode_checked(texts)
        logits = engine.model_logits_of_rows([text.ids for text in encoded], progress.update)
    seconds = time.perf_counter() - started
    return logits, count_truncation(encoded, engine.max_length), seconds


def _unseen(answers: Answers, overlap: Overlap, config: EvaluateConfig) -> UnseenScores | None:
    """Return the figures on rows that the model was not trained on; None: no such row, or all."""
    if overlap.seen is None or not overlap.seen.any() or overlap.seen.all():
        return None
    others = answers.where(~overlap.seen)
    measured, bounds = others.measure(), intervals(others, config.bootstrap, config.seed)
    return UnseenScores(
        rows=measured.rows,
        macro_over=measured.macro_over,
        accuracy=measured.accuracy,
        macro_f1=measured.macro_f1,
        intervals={name: bounds[name] for name in ("accuracy", "macro_f1")},
    )


def _suite(config: EvaluateConfig) -> Suite | None:
    if config.behavior is None:
        return None
    return read_suite(None if config.behavior == SHIPPED else Path(config.behavior).expanduser())


def _uncalibrated(engine: Engine, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return probabilities without the calibration for a domain, else without the temperature.

    Args:
        logits: of the model's own labels.
    """
    if engine.calibration.name is None:
        return softmax(engine.fold_labels(engine.uncalibrated(logits)), 1.0)
    return engine.calibrated(engine.fold_labels(logits), engine.own_calibration)


def _calibration(engine: Engine, before: Answers, answers: Answers) -> CalibrationEffect:
    """Return ECE and log loss of these rows without and with the calibration, and its origin.

    Temperature and biases for a domain are relative to the model's own calibration.
    """
    used, own = engine.calibration, engine.own_calibration
    fit, biases = used.fit, used.biases
    unscaled, scaled = before.measure(), answers.measure()
    return CalibrationEffect(
        name=used.name,
        temperature=used.fitted if biases is None else used.temperature / own.temperature,
        biases=None if biases is None else dict(zip(LABELS, biases, strict=True)),
        ece_before=unscaled.ece,
        ece_after=scaled.ece,
        log_loss_before=unscaled.log_loss,
        log_loss_after=scaled.log_loss,
        fitted_on=_calibration_origin(fit) if fit else None,
    )


def _calibration_origin(fit: CalibrationFit) -> CalibrationOrigin:
    return CalibrationOrigin(
        dataset_version=fit.dataset_version,
        split=fit.split,
        rows=fit.rows,
        reason=fit.reason,
        ece_before=fit.ece_before,
        ece_after=fit.ece_after,
    )


def _abstention(engine: Engine, answers: Answers) -> Abstention:
    """Return coverage and accuracy at the model's threshold, and the risk-coverage curve."""
    fit = engine.calibration.fit
    wanted = fit.wanted_accuracy if fit else None
    measured = selective(answers.confidence, answers.right, engine.threshold)
    return Abstention(
        wanted_accuracy=wanted,
        threshold=engine.threshold,
        reason=fit.threshold_reason if fit else "the model was never calibrated",
        coverage=measured.coverage,
        accuracy=measured.accuracy,
        **dict(promise(answers, engine.threshold, wanted)),
        curve=risk_coverage(answers.confidence, answers.right),
    )


def promise(answers: Answers, threshold: float | None, wanted: float | None) -> Promise:
    """Return whether the answered rows reach the wanted accuracy, with a 95 % Wilson interval."""
    answered = answers.confidence >= (2.0 if threshold is None else threshold)
    rows, hits = int(answered.sum()), int(answers.right[answered].sum())
    if not rows or wanted is None:
        return Promise(answered=rows, interval=None, holds=None)
    low, high = wilson(hits, rows)
    holds = True if hits / rows >= wanted else False if high < wanted else None
    return Promise(answered=rows, interval=(low, high), holds=holds)


def _mistakes(rows: pa.Table, answers: Answers) -> tuple[Mistake, ...]:
    """Return the 50 wrong rows of highest confidence."""
    wrong = np.flatnonzero(~answers.right)
    worst = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:_MAX_MISTAKES]
    columns = [c for c in ("key", "text", "label", "source", "row") if c in rows.column_names]
    worst_rows = rows.select(columns).take(pa.array(worst)).to_pylist()
    return tuple(
        Mistake(
            **row,
            predicted=LABELS[int(answers.predicted[index])],
            score=float(answers.confidence[index]),
        )
        for row, index in zip(worst_rows, worst, strict=True)
    )


def read_benchmark(
    sources: list[SourceConfig], config: DataConfig, cache: Path, field: str = "evaluate.sources"
) -> pa.Table:
    """Read labeled files to measure on: cleaned rows of all splits, without conflicting rows.

    Args:
        cache: directory of downloads from hubs.
        field: the setting that names the sources, for messages.

    Raises:
        InputError: a file is unusable, or no row is usable.
    """
    config = config.replaced(sources=sources, exclude=[], conflicts="drop")
    table = read_labeled(find_sources(config, cache), config)
    if not len(table):
        uris = [source.uri for source in sources]
        raise InputError(f"{field}={uris}: no usable row. Add labeled rows.")
    return table


def write_results(metrics: StoredMetrics, out: Path, title: str) -> None:
    """Write `report.html` with its pictures, and `metrics.json`."""
    # Matplotlib and Jinja: 0.4 s; jobs that only measure do without.
    from finsent.evaluation.report import write_report

    write_report(metrics, out, title)
    metrics.write(out / METRICS_FILE)
