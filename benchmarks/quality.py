"""Coverage of the estimates of quality, on shifts with a known truth."""

from __future__ import annotations

import numpy as np

from benchmarks.settings import BenchSettings, benchmark
from finsent.monitoring.quality import estimate_quality, powered_accuracy
from finsent.monitoring.ranks import Floats, Ints
from ray_jobs._cli import Result, main

RECALLS = np.array(
    [
        [[0.80, 0.15, 0.05], [0.05, 0.90, 0.05], [0.05, 0.15, 0.80]],
        [[0.60, 0.30, 0.10], [0.10, 0.75, 0.15], [0.10, 0.30, 0.60]],
    ]
)  # by source, true label and predicted label
MIX, SOURCES = np.array([0.15, 0.53, 0.32]), np.array([0.7, 0.3])
CONCEPT = np.array([[0.55, 0.35, 0.10], [0.15, 0.70, 0.15], [0.10, 0.35, 0.55]])
REFERENCE_ROWS, STREAM_ROWS, RESAMPLES = 1_000, 2_000, 400
LABELS, LABELED_RUNS = 400, 1_000


def bench_quality(settings: BenchSettings) -> Result:
    """Measure how often the intervals hold the true accuracy."""
    random = np.random.default_rng(settings.bench.seed)
    runs = settings.bench.years
    cases = {
        "no shift": (MIX, SOURCES, RECALLS),
        "label shift": (np.array([0.45, 0.30, 0.25]), SOURCES, RECALLS),
        "source shift": (MIX, np.array([0.2, 0.8]), RECALLS),
        "both": (np.array([0.45, 0.30, 0.25]), np.array([0.2, 0.8]), RECALLS),
        "concept shift: not covered": (MIX, SOURCES, np.stack([CONCEPT, CONCEPT])),
    }
    return {
        "runs": runs,
        "without_labels": {name: _coverage(random, runs, *case) for name, case in cases.items()},
        "with_labels": _powered(random, LABELED_RUNS),
    }


def _draw(random: np.random.Generator, rows: int, joint: Floats) -> Ints:
    return np.asarray(random.multinomial(rows, joint.ravel()).reshape(joint.shape))


def _joint(mix: Floats, sources: Floats, recalls: Floats) -> Floats:
    return sources[:, None, None] * mix[:, None] * recalls


def _coverage(
    random: np.random.Generator, runs: int, mix: Floats, sources: Floats, recalls: Floats
) -> Result:
    """Return the share of intervals with the truth, and errors of the plain estimate."""
    joint = _joint(mix, sources, recalls)
    truth = float(np.diagonal(joint, axis1=1, axis2=2).sum())
    f1 = _macro_f1(joint.sum(0))
    held, held_f1, widths, errors, plain = 0, 0, [], [], []
    for run in range(runs):
        reference = _draw(random, REFERENCE_ROWS, _joint(MIX, SOURCES, RECALLS))
        predicted = _draw(random, STREAM_ROWS, joint).sum(1)
        quality = estimate_quality(reference, predicted, RESAMPLES, run)
        held += quality.accuracy.low <= truth <= quality.accuracy.high
        held_f1 += quality.macro_f1.low <= f1 <= quality.macro_f1.high
        widths.append(quality.accuracy.high - quality.accuracy.low)
        errors.append(abs(quality.accuracy.value - truth))
        plain.append(abs(_calibrated_confidence(reference, predicted) - truth))
    return {
        "true_accuracy": truth,
        "accuracy_held": held / runs,
        "macro_f1_held": held_f1 / runs,
        "width": float(np.mean(widths)),
        "mean_error": float(np.mean(errors)),
        "mean_error_of_confidence": float(np.mean(plain)),
    }


def _macro_f1(joint: Floats) -> float:
    hits = np.diagonal(joint)
    return float((2 * hits / (joint.sum(0) + joint.sum(1))).mean())


def _calibrated_confidence(reference: Ints, predicted: Ints) -> float:
    """Return the mean confidence of a model that is calibrated on the reference, per answer."""
    table = reference.sum(0)
    precision = np.diagonal(table) / table.sum(0)
    return float(predicted.sum(0) @ precision / predicted.sum())


def _powered(random: np.random.Generator, runs: int) -> Result:
    """Compare intervals of labels alone and with the confidences of all rows."""
    held, powered, plain = 0, [], []
    for _ in range(runs):
        chances = random.beta(2.2, 0.4, STREAM_ROWS * 5)
        confidences = np.sqrt(chances)  # overconfident
        right = (random.random(LABELS) < chances[:LABELS]).astype(int)
        interval = powered_accuracy(confidences[LABELS:], confidences[:LABELS], right)
        held += interval.low <= 2.2 / 2.6 <= interval.high
        powered.append(interval.high - interval.low)
        plain.append(2 * 1.96 * float(right.std(ddof=1)) / np.sqrt(LABELS))
    ratio = float(np.mean(powered) / np.mean(plain))
    return {
        "held": held / runs,
        "width_over_labels_alone": ratio,
        "labels_over_labels_alone": ratio**2,
    }


JOB = benchmark(
    "quality",
    bench_quality,
    summary="Measure the coverage of accuracy and macro-F1 that are estimated without labels.",
    result="without_labels (accuracy_held; bar: 0.9), with_labels (labels_over_labels_alone)",
    sections=(),
)

if __name__ == "__main__":
    main(JOB)
