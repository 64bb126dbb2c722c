"""Measure a model on labelled rows, beside baselines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finsent.bars import bar
from finsent.data.config import DataConfig, SourceConfig
from finsent.data.labelled import read_labelled
from finsent.data.sources import find_sources
from finsent.errors import InputError
from finsent.evaluation import baselines
from finsent.evaluation.abstention import risk_coverage, selective
from finsent.evaluation.behaviour.run import run_suite
from finsent.evaluation.behaviour.suite import Suite, read_suite
from finsent.evaluation.bootstrap import intervals
from finsent.evaluation.calibration import label_ids
from finsent.evaluation.config import SHIPPED, EvaluateConfig
from finsent.evaluation.metrics import Answers
from finsent.evaluation.slices import slices
from finsent.inference.engine import Engine, softmax
from finsent.labels import LABELS

_MISTAKES = 50


def evaluate(
    engine: Engine,
    rows: pa.Table,
    train: pa.Table | None,
    seen: pa.ChunkedArray | None,
    config: EvaluateConfig,
    noise_ceiling: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Score the engine, and the baselines when there are training rows to fit them on.

    Args:
        rows: with `key`, `text` and `label` columns, maybe also `source` and `row`.
        train: rows to fit the baselines on, with `text` and `label`; None: no baselines.
        seen: keys of the rows that the model was trained on; None: not at hand.
        noise_ceiling: the best accuracy that the labels allow, as the data's manifest has it.

    Returns:
        JSON-able. `finsent.evaluation.metrics.Answers.measure` of the model, with `intervals` by
        figure, `noise_ceiling`, `baselines` by name (empty without `train`), `calibration`,
        `reliability` (and `reliability_before` the temperature), `abstention`, `slices`,
        `behaviour` (None: not run), `seen_in_training` (rows whose text the model was trained on;
        None: unknown), `rows_per_second` and `mistakes` (the 50 wrong rows of most confidence).

    Raises:
        InputError: the behaviour suite has a fault.
    """
    suite = _suite(config)
    texts, truth = rows["text"].to_pylist(), label_ids(rows)
    logits, seconds = _run(engine, texts)
    raw = Answers(truth, softmax(logits, 1.0))
    answers = Answers(truth, softmax(logits, engine.temperature))
    guesses = {}
    if train is not None:
        fitted = label_ids(train)
        guesses = {
            "majority": baselines.majority(fitted, len(texts)),
            "vader": baselines.vader(texts),
            "tfidf_logreg": baselines.tfidf(train["text"].to_pylist(), fitted, texts),
        }
    return {
        **answers.measure(),
        "intervals": intervals(answers, config.bootstrap, config.seed),
        "noise_ceiling": noise_ceiling,
        "baselines": {name: Answers(truth, found).measure() for name, found in guesses.items()},
        "calibration": _calibration(engine, raw, answers),
        "reliability": answers.reliability(),
        "reliability_before": raw.reliability(),
        "abstention": _abstention(engine, answers),
        "slices": slices(rows, truth, answers.probabilities),
        "behaviour": run_suite(suite, engine.probabilities) if suite else None,
        "seen_in_training": (
            None if seen is None else int(pc.sum(pc.is_in(rows["key"], seen)).as_py() or 0)
        ),
        "rows_per_second": len(texts) / seconds,
        "mistakes": _mistakes(rows, answers),
    }


def _run(engine: Engine, texts: list[str]) -> tuple[npt.NDArray[np.float32], float]:
    """Logits, and the seconds that they took."""
    started = time.perf_counter()
    with bar("evaluate", "row", len(texts), live=0.2, log=10.0) as shown:
        logits = engine.logits(texts, shown.update)
    return logits, time.perf_counter() - started


def _suite(config: EvaluateConfig) -> Suite | None:
    if config.behaviour is None:
        return None
    return read_suite(None if config.behaviour == SHIPPED else Path(config.behaviour).expanduser())


def _calibration(engine: Engine, raw: Answers, answers: Answers) -> dict[str, Any]:
    """ECE and log loss of these rows without and with the temperature, and where that is from."""
    record = engine.calibration.record
    unscaled, scaled = raw.measure(), answers.measure()
    keys = ("dataset_version", "split", "rows", "reason", "ece_before", "ece_after")
    return {
        "temperature": engine.temperature,
        "ece_before": unscaled["ece"],
        "ece_after": scaled["ece"],
        "log_loss_before": unscaled["log_loss"],
        "log_loss_after": scaled["log_loss"],
        "fitted_on": {key: record.get(key) for key in keys} if record else None,
    }


def _abstention(engine: Engine, answers: Answers) -> dict[str, Any]:
    """What the model's own threshold does to these rows, and what others would do."""
    rule = engine.calibration.record.get("abstention") or {}
    return {
        "wanted_accuracy": rule.get("wanted_accuracy"),
        "threshold": engine.threshold,
        "reason": rule.get("reason") if rule else "the model was never calibrated",
        **selective(answers.confidence, answers.right, engine.threshold),
        "curve": risk_coverage(answers.confidence, answers.right),
    }


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
    """Read labelled files to measure on: cleaned, distinct, conflicts dropped; all splits as one.

    Args:
        cache: directory for what hubs deliver.
        field: the setting that names the sources, for messages.

    Raises:
        InputError: a file is unusable, or nothing is left.
    """
    config = config.model_copy(update={"sources": sources, "exclude": [], "conflicts": "drop"})
    table = read_labelled(find_sources(config, cache), config)
    if not len(table):
        shown = [source.uri for source in sources]
        raise InputError(f"{field}={shown}: no usable row; add labelled rows")
    return table


def write_results(result: dict[str, Any], out: Path, title: str) -> None:
    """Write `report.html` with its pictures, and `metrics.json`."""
    from finsent.evaluation.report import write_report
    from finsent.files import write_json

    write_report(result, out, title)
    write_json(out / "metrics.json", result)
