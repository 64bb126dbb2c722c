"""Calibrate a trained model's confidence, and choose the threshold below which it abstains.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599): one number divides the logits, chosen to
minimize the log loss on the validation split. Labels do not change. The number is folded into the
weights, so that every reader of the weights is calibrated. Needs no Ray.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finsent.evaluation.abstention import risk_coverage, selective, threshold_for
from finsent.evaluation.metrics import Answers, Ids
from finsent.inference.engine import Engine, softmax
from finsent.inference.export_record import drop_exports
from finsent.labels import LABEL2ID, LABELS
from finsent.modeling.calibration import (
    AbstentionRecord,
    CalibrationRecord,
    read_calibration_record,
)
from finsent.modeling.label_map import ABSENT_LOGIT
from finsent.modeling.model_dir import CALIBRATION
from finsent.modeling.rows_origin import RowsOrigin

log = logging.getLogger(__name__)

Logits = npt.NDArray[np.float32]
FoldLabels = Callable[[Logits], Logits]  # logits of a model's labels to logits of `LABELS`

MIN_ROWS = 50  # fewer rows determine neither temperature nor threshold
_MAX_ROWS = 10_000  # more rows cost time and hardly change the one number
_TEMPERATURE_RANGE = (0.05, 20.0)
_GRID_SIZE = 60  # temperatures at which the coarse search computes the loss
_SAME_FIT = 1e-4  # relative difference below which two fits are the same
_PROBE_TEXTS = (
    "Profit rose.",
    "The shares fell 8 % after a weak spring.",
    "The meeting is on 4 May.",
)


def label_ids(rows: pa.Table) -> Ids:
    """Return the ids of a table's `label` column, which has names."""
    return np.array([LABEL2ID[name] for name in rows["label"].to_pylist()], np.int64)


def log_loss(logits: Logits, truth: Ids, temperature: float) -> float:
    """Return the mean of -ln(probability of the true label), in nats."""
    # 0.1 s that commands without a calibration do without.
    from scipy.special import log_softmax

    scaled = log_softmax(np.asarray(logits, np.float64) / temperature, axis=1)
    return float(-scaled[np.arange(len(truth)), truth].mean())


def _identity(logits: Logits) -> Logits:
    return logits


def probabilities(
    logits: Logits, temperature: float, fold_labels: FoldLabels = _identity
) -> Logits:
    """Return probabilities of `LABELS`, where the temperature divides the model's own logits."""
    return softmax(fold_labels(np.asarray(logits, np.float64) / temperature), 1.0)  # type: ignore[arg-type]


def fit_temperature(
    logits: Logits, truth: Ids, fold_labels: FoldLabels = _identity
) -> tuple[float, str | None]:
    """Return the temperature with the least log loss, or 1 and the reason against a fit.

    For a model with the labels `LABELS` the loss is convex in 1/T. Where several labels of a model
    map to one of `LABELS`, a coarse search finds the deepest valley first. Rows whose label the
    model never answers are wrong at each temperature, and are left out.

    Args:
        logits: of the model's own labels, shape (rows, its labels).
        truth: label ids, shape (rows,).
        fold_labels: turns logits of the model's labels into logits of `LABELS`.
    """
    from scipy.optimize import minimize_scalar  # as in `log_loss`

    answered = fold_labels(logits)
    answerable = answered[np.arange(len(truth)), truth] > ABSENT_LOGIT / 2
    if np.isfinite(logits).all() and not answerable.all():
        logits, answered = logits[answerable], answered[answerable]
        truth = truth[answerable]
    if len(truth) < MIN_ROWS:
        return 1.0, f"{len(truth)} rows are too few; {MIN_ROWS} are needed"
    if not np.isfinite(logits).all():
        return 1.0, "some logits are not finite"
    if len(np.unique(truth)) < 2:
        return 1.0, f"all rows are {LABELS[int(truth[0])]}"
    if (answered.argmax(1) == truth).all():
        return 1.0, "all rows are right, so the log loss falls without end as the temperature falls"
    exact = np.asarray(logits, np.float64)

    def loss(log_t: float) -> float:
        return log_loss(fold_labels(exact / np.exp(log_t)), truth, 1.0)

    low, high = np.log(_TEMPERATURE_RANGE)
    grid = np.linspace(low, high, _GRID_SIZE)
    lowest = int(np.argmin([loss(float(log_t)) for log_t in grid]))
    optimum = minimize_scalar(
        loss,
        bounds=(grid[max(lowest - 1, 0)], grid[min(lowest + 1, _GRID_SIZE - 1)]),
        method="bounded",
        options={"xatol": 1e-5},
    )
    if not optimum.success or not low + 0.01 < optimum.x < high - 0.01:
        return 1.0, "the log loss has no minimum at a usable temperature"
    return float(np.exp(optimum.x)), None


def calibration_of(
    logits: Logits,
    truth: Ids,
    wanted_accuracy: float,
    fold_labels: FoldLabels = _identity,
    current: float = 1.0,
) -> CalibrationRecord:
    """Return temperature and abstention threshold, with their figures on the rows.

    Args:
        logits: of the model's own labels on the validation split, shape (rows, its labels).
        truth: label ids, shape (rows,).
        wanted_accuracy: among the rows that are answered, 0 to 1.
        fold_labels: turns logits of the model's labels into logits of `LABELS`.
        current: the present temperature, which stays where the fitted one hardly differs.
    """
    temperature, reason = fit_temperature(logits, truth, fold_labels)
    if math.isclose(temperature, current, rel_tol=_SAME_FIT):
        temperature = current
    before = Answers(truth, probabilities(logits, 1.0, fold_labels)).measure()
    answers = Answers(truth, probabilities(logits, temperature, fold_labels))
    after = answers.measure()
    return CalibrationRecord(
        schema_version=1,
        temperature=temperature,
        reason=reason,
        rows=len(truth),
        log_loss_before=before.log_loss,
        log_loss_after=after.log_loss,
        ece_before=before.ece,
        ece_after=after.ece,
        abstention=_abstention(answers, wanted_accuracy),
    )


def _abstention(answers: Answers, wanted_accuracy: float) -> AbstentionRecord:
    """Choose the threshold for an accuracy among the answered rows."""
    rows, threshold, reason = len(answers.truth), None, None
    if rows < MIN_ROWS:
        reason = f"{rows} rows are too few; {MIN_ROWS} are needed"
    else:
        threshold = threshold_for(answers.confidence, answers.right, wanted_accuracy)
        if threshold is None:
            reason = f"no threshold reaches an accuracy of {wanted_accuracy:g}"
    measured = selective(answers.confidence, answers.right, threshold)
    return AbstentionRecord(
        wanted_accuracy=wanted_accuracy,
        threshold=threshold,
        reason=reason,
        coverage=measured.coverage,
        accuracy=measured.accuracy,
        curve=risk_coverage(answers.confidence, answers.right),
    )


def calibrate(
    engine: Engine, rows: pa.Table, wanted_accuracy: float, origin: RowsOrigin
) -> CalibrationRecord:
    """Fit on labeled rows, fold the temperature into the weights, and write `calibration.json`.

    A repeated calibration fits on the logits as they were before the first one. Exports have the
    previous weights, so they are deleted where the temperature changes. Where the model has no
    layer that scales its logits, the weights stay, and the engine divides by the temperature.

    Args:
        engine: of the model; its present calibration has no effect. Load a new engine afterwards.
        rows: the validation split, with `text` and `label`; of more than 10,000 a sample is used.
        wanted_accuracy: see `calibration_of`.
        origin: of the rows.

    Returns:
        The stored record; `temperature` is the divisor that the weights do not contain.
    """
    from finsent.modeling.folding import fold, scaling_tensors  # PyTorch: 2 s

    if len(rows) > _MAX_ROWS:
        chosen = np.random.default_rng(0).choice(len(rows), _MAX_ROWS, replace=False)
        rows = rows.take(pa.array(np.sort(chosen)))
    model_dir, current = engine.model_dir, engine.folded
    names = scaling_tensors(model_dir, [text.ids for text in engine.encode(_PROBE_TEXTS)])
    logits = engine.uncalibrated(engine.model_logits(rows["text"].to_pylist()))
    fold_labels: FoldLabels = engine.fold_labels
    if not names:
        # The engine divides the logits of `LABELS`, so the temperature is fitted on those.
        logits, fold_labels = fold_labels(logits), _identity
    fitted = calibration_of(logits, label_ids(rows), wanted_accuracy, fold_labels, current)
    folded = fitted.temperature if names else current
    record = CalibrationRecord.model_validate(
        {
            **origin,
            **fitted.model_dump(),
            "temperature": fitted.temperature / folded,
            "folded_temperature": folded,
        }
    )
    if not names and record.temperature != 1:
        log.warning(
            "%s: no single layer scales its logits, so calibration.json keeps the temperature: "
            "finsent divides by it, other readers of the weights do not",
            model_dir,
        )
    previous = read_calibration_record(model_dir)
    if previous is not None and _is_same(record, previous):
        return previous
    if folded != current:
        if drop_exports(model_dir):
            log.info("calibrate: the exports have the previous weights; export the model again")
        (model_dir / CALIBRATION).unlink(missing_ok=True)  # belongs to the previous weights
        fold(model_dir, names, folded)
    record.write(model_dir / CALIBRATION)
    return record


def _is_same(a: CalibrationRecord, b: CalibrationRecord) -> bool:
    """Return whether two calibrations differ only by the rounding of logits."""
    first, second = (_comparable(record) for record in (a, b))
    return first.keys() == second.keys() and all(
        math.isclose(value, other, rel_tol=_SAME_FIT, abs_tol=1e-6)
        if isinstance(value, float) and isinstance(other := second[key], float)
        else value == second[key]
        for key, value in first.items()
    )


def _comparable(record: CalibrationRecord) -> Mapping[str, object]:
    """Return the figures of a record by key, without the curve."""
    content = record.model_dump(mode="json", exclude={"abstention"})
    return content | record.abstention.model_dump(mode="json", exclude={"curve"})


def fitted_temperature(record: CalibrationRecord) -> float:
    """Return the fitted temperature, whether the weights or the engine divide by it."""
    return record.temperature * (record.folded_temperature or 1.0)


def calibration_line(record: CalibrationRecord) -> str:
    """Return a calibration in one line."""
    rule = record.abstention
    scaling = f"temperature 1 ({record.reason})"
    if record.reason is None:
        scaling = (
            f"temperature {fitted_temperature(record):.3f}, ECE {record.ece_before:.3f} -> "
            f"{record.ece_after:.3f}"
        )
    if rule.threshold is None:
        return f"{scaling}; no abstention threshold ({rule.reason})"
    return (
        f"{scaling}; accuracy {rule.wanted_accuracy:g} from confidence {rule.threshold:.3f}, "
        f"which covers {rule.coverage:.1%}"
    )
