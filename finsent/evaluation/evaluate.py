"""Measure a model on labeled rows, beside baselines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

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
from finsent.evaluation.behavior.suite import Suite, read_suite
from finsent.evaluation.bootstrap import intervals
from finsent.evaluation.calibration import label_ids
from finsent.evaluation.config import SHIPPED, EvaluateConfig
from finsent.evaluation.metrics import Answers
from finsent.evaluation.slices import agreement_levels, slices, wilson
from finsent.evaluation.training_overlap import Overlap, TrainingRows, find_overlap
from finsent.inference.engine import Engine, softmax
from finsent.inference.truncation import Truncation
from finsent.labels import LABELS
from finsent.progress import progress_bar

_MISTAKES = 50


def evaluate(
    engine: Engine,
    rows: pa.Table,
    train: pa.Table | None,
    seen: TrainingRows | None,
    config: EvaluateConfig,
    noise_ceiling: dict[str, float] | None = None,
    near: NearConfig | None = None,
) -> dict[str, Any]:
    """Score the engine, and the baselines when there are training rows to fit them on.

    Args:
        rows: with `key`, `text` and `label` columns, maybe also `source` and `row`.
        train: rows to fit the baselines on, with `text` and `label`; None: no baselines.
        seen: rows that the model was trained on; None: it was trained elsewhere.
        noise_ceiling: the best accuracy that the labels allow, as the data's manifest has it.
        near: how near copies of training rows are found; None: by the defaults.

    Returns:
        JSON-able. `finsent.evaluation.metrics.Answers.measure` of the model, with `intervals` by
        figure, `noise_ceiling`, `baselines` by name (empty without `train`), `calibration`,
        `reliability` (and `reliability_before` the calibration), `abstention`, `slices`,
        `behavior` (None: not run), `seen_in_training` (rows whose text the model was trained on;
        None: unknown), `overlap` (that, near copies, and the figures on all other rows),
        `truncation`, `agreement` (accuracy by the annotators' agreement), `rows_per_second` and
        `mistakes` (the 50 wrong rows of most confidence).

    Raises:
        InputError: the behavior suite has a fault.
    """
    suite = _suite(config)
    texts, truth = rows["text"].to_pylist(), label_ids(rows)
    logits, truncation, seconds = _run(engine, texts)
    answers = Answers(truth, engine.calibrated(engine.fold_labels(logits)))
    before = Answers(truth, _before(engine, logits))
    overlap = find_overlap(rows, seen or TrainingRows(), near or NearConfig())
    return {
        **answers.measure(),
        "intervals": intervals(answers, config.bootstrap, config.seed),
        "noise_ceiling": noise_ceiling,
        "baselines": {} if train is None else _measure_baselines(train, texts, truth),
        "calibration": _calibration(engine, before, answers),
        "reliability": answers.reliability(),
        "reliability_before": before.reliability(),
        "abstention": _abstention(engine, answers),
        "slices": slices(rows, truth, answers.probabilities),
        "agreement": agreement_levels(rows, truth, answers.predicted),
        "behavior": run_suite(suite, engine.probabilities) if suite else None,
        "seen_in_training": overlap.record()["rows"],
        "overlap": {**overlap.record(), "unseen": _unseen(answers, overlap, config)},
        "truncation": truncation.record(),
        "rows_per_second": len(texts) / seconds,
        "mistakes": _mistakes(rows, answers),
    }


def _measure_baselines(
    train: pa.Table, texts: list[str], truth: npt.NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
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


def _run(engine: Engine, texts: list[str]) -> tuple[npt.NDArray[np.float32], Truncation, float]:
    """Return logits of the model's own labels, how much of the texts was cut, and the seconds."""
    started = time.perf_counter()
    with progress_bar(
        "evaluate", "row", len(texts), terminal_seconds=0.2, log_seconds=10.0
    ) as shown:
        encoded = engine.encode_checked(texts)
        logits = engine.model_logits_of_rows([text.ids for text in encoded], shown.update)
    seconds = time.perf_counter() - started
    return logits, Truncation.of(encoded, engine.max_length), seconds


def _unseen(answers: Answers, overlap: Overlap, config: EvaluateConfig) -> dict[str, Any] | None:
    """Return the figures on the rows that the model was not trained on; None: none, or all."""
    if overlap.seen is None or not overlap.seen.any() or overlap.seen.all():
        return None
    others = answers.where(~overlap.seen)
    measured, ends = others.measure(), intervals(others, config.bootstrap, config.seed)
    figures = ("accuracy", "macro_f1")
    return {
        **{name: measured[name] for name in ("rows", "macro_over", *figures)},
        "intervals": {name: ends[name] for name in figures},
    }


def _suite(config: EvaluateConfig) -> Suite | None:
    if config.behavior is None:
        return None
    return read_suite(None if config.behavior == SHIPPED else Path(config.behavior).expanduser())


def _before(engine: Engine, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return probabilities without the temperature, or without the calibration for a domain.

    Args:
        logits: of the model's own labels.
    """
    if engine.calibration.name is None:
        return softmax(engine.fold_labels(engine.uncalibrated(logits)), 1.0)
    return engine.calibrated(engine.fold_labels(logits), engine.own_calibration)


def _calibration(engine: Engine, before: Answers, answers: Answers) -> dict[str, Any]:
    """ECE and log loss of these rows without and with the calibration, and where that is from.

    The temperature and the biases of a domain are those that follow the model's own calibration.
    """
    used, own = engine.calibration, engine.own_calibration
    fit, biases = used.fit, used.biases
    unscaled, scaled = before.measure(), answers.measure()
    keys = ("dataset_version", "split", "rows", "reason", "ece_before", "ece_after")
    return {
        "name": used.name,
        "temperature": used.fitted if biases is None else used.temperature / own.temperature,
        "biases": None if biases is None else dict(zip(LABELS, biases, strict=True)),
        "ece_before": unscaled["ece"],
        "ece_after": scaled["ece"],
        "log_loss_before": unscaled["log_loss"],
        "log_loss_after": scaled["log_loss"],
        "fitted_on": {key: getattr(fit, key) for key in keys} if fit else None,
    }


def _abstention(engine: Engine, answers: Answers) -> dict[str, Any]:
    """What the model's own threshold does to these rows, and what others would do."""
    fit = engine.calibration.fit
    wanted = fit.wanted_accuracy if fit else None
    return {
        "wanted_accuracy": wanted,
        "threshold": engine.threshold,
        "reason": fit.threshold_reason if fit else "the model was never calibrated",
        **selective(answers.confidence, answers.right, engine.threshold),
        **promise(answers, engine.threshold, wanted),
        "curve": risk_coverage(answers.confidence, answers.right),
    }


def promise(answers: Answers, threshold: float | None, wanted: float | None) -> dict[str, Any]:
    """Return whether the answered rows have the wanted accuracy.

    Returns:
        `answered` (rows), `interval` (95 % of their accuracy, Wilson's) and `holds` (None: the
        accuracy is below the wanted one, but not beyond chance; or nothing is promised).
    """
    answered = answers.confidence >= (2.0 if threshold is None else threshold)
    rows, hits = int(answered.sum()), int(answers.right[answered].sum())
    if not rows or wanted is None:
        return {"answered": rows, "interval": None, "holds": None}
    low, high = wilson(hits, rows)
    holds = True if hits / rows >= wanted else False if high < wanted else None
    return {"answered": rows, "interval": [low, high], "holds": holds}


def _mistakes(rows: pa.Table, answers: Answers) -> list[dict[str, Any]]:
    wrong = np.flatnonzero(~answers.right)
    worst = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:_MISTAKES]
    columns = [c for c in ("key", "text", "label", "source", "row") if c in rows.column_names]
    found: list[dict[str, Any]] = rows.select(columns).take(pa.array(worst)).to_pylist()
    for mistake, place in zip(found, worst, strict=True):
        mistake["predicted"] = LABELS[int(answers.predicted[place])]
        mistake["score"] = float(answers.confidence[place])
    return found


def read_benchmark(
    sources: list[SourceConfig], config: DataConfig, cache: Path, field: str = "evaluate.sources"
) -> pa.Table:
    """Read labeled files to measure on: cleaned, distinct, conflicts dropped; all splits as one.

    Args:
        cache: directory for what hubs deliver.
        field: the setting that names the sources, for messages.

    Raises:
        InputError: a file is unusable, or nothing is left.
    """
    config = config.replaced(sources=sources, exclude=[], conflicts="drop")
    table = read_labeled(find_sources(config, cache), config)
    if not len(table):
        shown = [source.uri for source in sources]
        raise InputError(f"{field}={shown}: no usable row; add labeled rows")
    return table


def write_results(result: dict[str, Any], out: Path, title: str) -> None:
    """Write `report.html` with its pictures, and `metrics.json`."""
    from finsent.evaluation.report import write_report
    from finsent.files import write_json

    write_report(result, out, title)
    write_json(out / "metrics.json", result)
