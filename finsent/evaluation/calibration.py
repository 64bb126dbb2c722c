"""Make a trained model's confidence mean what it says, and find when it should abstain.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599): one number divides the logits, chosen to
minimize the log loss on the validation split. Labels stay as they are. The number is folded into
the weights, so that whatever reads them is calibrated. Needs no Ray.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finsent.evaluation.abstention import risk_coverage, selective, threshold_for
from finsent.evaluation.metrics import Answers, Ids
from finsent.inference.engine import Engine, softmax
from finsent.inference.export_record import drop_exports
from finsent.labels import LABEL2ID, LABELS
from finsent.modeling.calibration import CalibrationRecord, read_calibration_record
from finsent.modeling.label_map import ABSENT_LOGIT
from finsent.modeling.model_dir import CALIBRATION

log = logging.getLogger(__name__)

Logits = npt.NDArray[np.float32]
Ours = Callable[[Logits], Logits]  # logits of a model's labels to those of `LABELS`

LEAST_ROWS = 50  # fewer say too little, about temperature and threshold alike
_MOST_ROWS = 10_000  # more would only cost time: it is one number
_RANGE = (0.05, 20.0)
_GRID = 60  # temperatures, to begin the search near the least loss
_SETTLED = 1e-4  # relative: a fit that differs less from the one before is the same one
_PROBES = ("Profit rose.", "The shares fell 8 % after a weak spring.", "The meeting is on 4 May.")


def label_ids(rows: pa.Table) -> Ids:
    """Ids of a table's `label` column (names)."""
    return np.array([LABEL2ID[name] for name in rows["label"].to_pylist()], np.int64)


def log_loss(logits: Logits, truth: Ids, temperature: float) -> float:
    """Mean of -ln(probability of the true label), in nats."""
    # 0.2 s that commands without a calibration do without.
    from scipy.special import log_softmax

    scaled = log_softmax(np.asarray(logits, np.float64) / temperature, axis=1)
    return float(-scaled[np.arange(len(truth)), truth].mean())


def _same(logits: Logits) -> Logits:
    return logits


def probabilities(logits: Logits, temperature: float, ours: Ours = _same) -> Logits:
    """Return probabilities of `LABELS`, where the temperature divides the model's own logits."""
    return softmax(ours(np.asarray(logits, np.float64) / temperature), 1.0)  # type: ignore[arg-type]


def fit_temperature(logits: Logits, truth: Ids, ours: Ours = _same) -> tuple[float, str | None]:
    """The temperature with the least log loss, or 1 and the reason why there is none to be had.

    For a model of our labels the loss is convex in 1/T; where several labels stand for one of ours
    a coarse search finds the deepest valley first. Rows whose label the model never answers, as one
    with two labels may, are wrong at each temperature and are left out.

    Args:
        logits: of the model's own labels, shape (rows, its labels).
        truth: label ids, shape (rows,).
        ours: turns logits of the model's labels into those of `LABELS`.
    """
    from scipy.optimize import minimize_scalar  # as in `log_loss`

    answered = ours(logits)
    answerable = answered[np.arange(len(truth)), truth] > ABSENT_LOGIT / 2
    if np.isfinite(logits).all() and not answerable.all():
        logits, answered = logits[answerable], answered[answerable]
        truth = truth[answerable]
    if len(truth) < LEAST_ROWS:
        return 1.0, f"{len(truth)} rows are too few; {LEAST_ROWS} are needed"
    if not np.isfinite(logits).all():
        return 1.0, "some logits are not finite"
    if len(np.unique(truth)) < 2:
        return 1.0, f"all rows are {LABELS[int(truth[0])]}"
    if (answered.argmax(1) == truth).all():
        return 1.0, "all rows are right, so the lower the better, without end"
    exact = np.asarray(logits, np.float64)

    def loss(log_t: float) -> float:
        return log_loss(ours(exact / np.exp(log_t)), truth, 1.0)

    low, high = np.log(_RANGE)
    grid = np.linspace(low, high, _GRID)
    near = int(np.argmin([loss(float(log_t)) for log_t in grid]))
    found = minimize_scalar(
        loss,
        bounds=(grid[max(near - 1, 0)], grid[min(near + 1, _GRID - 1)]),
        method="bounded",
        options={"xatol": 1e-5},
    )
    if not found.success or not low + 0.01 < found.x < high - 0.01:
        return 1.0, "the log loss has no minimum at a usable temperature"
    return float(np.exp(found.x)), None


def calibration_of(
    logits: Logits,
    truth: Ids,
    wanted_accuracy: float,
    ours: Ours = _same,
    standing: float = 1.0,
) -> dict[str, Any]:
    """Temperature and abstention threshold, with what they were found on; JSON-able.

    Args:
        logits: of the model's own labels on the validation split, shape (rows, its labels).
        truth: label ids, shape (rows,).
        wanted_accuracy: among the rows that are answered, 0 to 1.
        ours: turns logits of the model's labels into those of `LABELS`.
        standing: a temperature that is kept where the fitted one hardly differs.
    """
    temperature, reason = fit_temperature(logits, truth, ours)
    if math.isclose(temperature, standing, rel_tol=_SETTLED):
        temperature = standing
    before = Answers(truth, probabilities(logits, 1.0, ours)).measure()
    answers = Answers(truth, probabilities(logits, temperature, ours))
    after = answers.measure()
    threshold, why = None, None
    if len(truth) < LEAST_ROWS:
        why = f"{len(truth)} rows are too few; {LEAST_ROWS} are needed"
    else:
        threshold = threshold_for(answers.confidence, answers.right, wanted_accuracy)
        if threshold is None:
            why = f"no threshold reaches an accuracy of {wanted_accuracy:g}"
    return {
        "schema_version": 1,
        "temperature": temperature,
        "reason": reason,
        "rows": len(truth),
        "log_loss_before": before["log_loss"],
        "log_loss_after": after["log_loss"],
        "ece_before": before["ece"],
        "ece_after": after["ece"],
        "abstention": {
            "wanted_accuracy": wanted_accuracy,
            "threshold": threshold,
            "reason": why,
            **selective(answers.confidence, answers.right, threshold),
            "curve": risk_coverage(answers.confidence, answers.right),
        },
    }


def calibrate(
    engine: Engine, rows: pa.Table, wanted_accuracy: float, origin: dict[str, Any]
) -> dict[str, Any]:
    """Fit on labeled rows, fold the temperature into the weights, and write `calibration.json`.

    Calibrating again fits on the logits as they were before the first time. Exports are of the
    weights before, so that they go where the temperature changes. Where the model has no layer that
    scales its logits, the weights stay, and the engine divides by the temperature.

    Args:
        engine: of the model; whatever calibration it has plays no part. Load another one after.
        rows: the validation split, with `text` and `label`; of more than 10,000 a sample is used.
        wanted_accuracy: see `calibration_of`.
        origin: written along: which rows these are.

    Returns:
        What was written; `temperature` is what is left to divide by.
    """
    from finsent.modeling.folding import fold, scaling_tensors  # PyTorch: 2 s

    if len(rows) > _MOST_ROWS:
        chosen = np.random.default_rng(0).choice(len(rows), _MOST_ROWS, replace=False)
        rows = rows.take(pa.array(np.sort(chosen)))
    model_dir, standing = engine.model_dir, engine.folded
    names = scaling_tensors(model_dir, [one.ids for one in engine.encode(_PROBES)])
    logits = engine.uncalibrated(engine.model_logits(rows["text"].to_pylist()))
    ours: Ours = engine.fold_labels
    if not names:
        logits, ours = ours(logits), _same  # the engine divides what has become ours
    fitted = calibration_of(logits, label_ids(rows), wanted_accuracy, ours, standing)
    folded = fitted["temperature"] if names else standing
    found = {**origin, **fitted, "temperature": fitted["temperature"] / folded}
    found["folded_temperature"] = folded
    if not names and found["temperature"] != 1:
        log.warning(
            "%s: no single layer scales its logits, so calibration.json keeps the temperature: "
            "finsent divides by it, other readers of the weights do not",
            model_dir,
        )
    record = CalibrationRecord.model_validate(found)
    before = read_calibration_record(model_dir)
    if before is not None:
        stored: dict[str, Any] = before.model_dump(mode="json")
        if _is_same(found, stored):
            return stored
    if folded != standing:
        if drop_exports(model_dir):
            log.info("calibrate: the exports are of the weights before; export the model again")
        (model_dir / CALIBRATION).unlink(missing_ok=True)  # belongs to the weights before
        fold(model_dir, names, folded)
    record.write(model_dir / CALIBRATION)
    return found


def _is_same(found: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether two calibrations differ in the rounding of logits alone."""
    rules = [{**one.get("abstention", {}), "curve": None} for one in (found, before)]
    first, second = ({**one, **rule} for one, rule in zip((found, before), rules, strict=True))
    first.pop("abstention"), second.pop("abstention", None)
    return first.keys() == second.keys() and all(
        math.isclose(value, second[key], rel_tol=_SETTLED, abs_tol=1e-6)
        if isinstance(value, float) and isinstance(second[key], float)
        else value == second[key]
        for key, value in first.items()
    )


def fitted_temperature(found: dict[str, Any]) -> float:
    """Return the temperature that a calibration found, wherever it divides now."""
    return float(found["temperature"] * found.get("folded_temperature", 1.0))


def calibration_line(found: dict[str, Any]) -> str:
    """One line on a calibration, for people."""
    rule = found["abstention"]
    if found["reason"]:
        scaled = f"temperature 1 ({found['reason']})"
    else:
        scaled = (
            f"temperature {fitted_temperature(found):.3f}, ECE {found['ece_before']:.3f} -> "
            f"{found['ece_after']:.3f}"
        )
    if rule["threshold"] is None:
        return f"{scaled}; no abstention threshold ({rule['reason']})"
    return (
        f"{scaled}; accuracy {rule['wanted_accuracy']:g} from confidence {rule['threshold']:.3f} "
        f"on, which covers {rule['coverage']:.1%}"
    )
