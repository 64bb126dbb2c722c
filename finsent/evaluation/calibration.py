"""Make a trained model's confidence mean what it says, and find when it should abstain.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599): one number divides the logits, chosen to
minimise the log loss on the validation split. Labels stay as they are. Needs no Ray.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finsent.evaluation.abstention import risk_coverage, selective, threshold_for
from finsent.evaluation.metrics import Answers, Ids
from finsent.files import write_json
from finsent.inference.engine import Engine, softmax
from finsent.labels import LABEL2ID, LABELS
from finsent.modeling.label_map import ABSENT_LOGIT
from finsent.modeling.layout import CALIBRATION, CALIBRATION_SCHEMA

Logits = npt.NDArray[np.float32]

LEAST_ROWS = 50  # fewer say too little, about temperature and threshold alike
_MOST_ROWS = 10_000  # more would only cost time: it is one number
_RANGE = (0.05, 20.0)


def label_ids(rows: pa.Table) -> Ids:
    """Ids of a table's `label` column (names)."""
    return np.array([LABEL2ID[name] for name in rows["label"].to_pylist()], np.int64)


def log_loss(logits: Logits, truth: Ids, temperature: float) -> float:
    """Mean of -ln(probability of the true label), in nats."""
    from scipy.special import log_softmax

    scaled = log_softmax(np.asarray(logits, np.float64) / temperature, axis=1)
    return float(-scaled[np.arange(len(truth)), truth].mean())


def fit_temperature(logits: Logits, truth: Ids) -> tuple[float, str | None]:
    """The temperature with the least log loss, or 1 and the reason why there is none to be had.

    The loss is convex in 1/T, so a bounded search for one number finds its only minimum. Rows whose
    label the model never answers, as one with two labels may, are wrong at each temperature and are
    left out.

    Args:
        logits: shape (rows, labels).
        truth: label ids, shape (rows,).
    """
    from scipy.optimize import minimize_scalar

    answerable = logits[np.arange(len(truth)), truth] > ABSENT_LOGIT / 2
    if np.isfinite(logits).all() and not answerable.all():
        logits, truth = logits[answerable], truth[answerable]
    if len(truth) < LEAST_ROWS:
        return 1.0, f"{len(truth)} rows are too few; {LEAST_ROWS} are needed"
    if not np.isfinite(logits).all():
        return 1.0, "some logits are not finite"
    if len(np.unique(truth)) < 2:
        return 1.0, f"all rows are {LABELS[int(truth[0])]}"
    if (logits.argmax(1) == truth).all():
        return 1.0, "all rows are right, so the lower the better, without end"
    low, high = np.log(_RANGE)
    found = minimize_scalar(
        lambda log_t: log_loss(logits, truth, float(np.exp(log_t))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-5},
    )
    if not found.success or not low + 0.01 < found.x < high - 0.01:
        return 1.0, "the log loss has no minimum at a usable temperature"
    return float(np.exp(found.x)), None


def calibration_of(logits: Logits, truth: Ids, wanted_accuracy: float) -> dict[str, Any]:
    """Temperature and abstention threshold, with what they were found on; JSON-able.

    Args:
        logits: of the validation split, shape (rows, labels).
        truth: label ids, shape (rows,).
        wanted_accuracy: among the rows that are answered, 0 to 1.
    """
    temperature, reason = fit_temperature(logits, truth)
    before = Answers(truth, softmax(logits, 1.0)).measure()
    answers = Answers(truth, softmax(logits, temperature))
    after = answers.measure()
    threshold, why = None, None
    if len(truth) < LEAST_ROWS:
        why = f"{len(truth)} rows are too few; {LEAST_ROWS} are needed"
    else:
        threshold = threshold_for(answers.confidence, answers.right, wanted_accuracy)
        if threshold is None:
            why = f"no threshold reaches an accuracy of {wanted_accuracy:g}"
    return {
        "schema_version": CALIBRATION_SCHEMA,
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
    """Fit on labelled rows and write `calibration.json` into a model's directory.

    Args:
        engine: of the model; whatever calibration it has plays no part.
        rows: the validation split, with `text` and `label`; of more than 10,000 a sample is used.
        wanted_accuracy: see `calibration_of`.
        origin: written along: which rows these are.

    Returns:
        What was written.
    """
    if len(rows) > _MOST_ROWS:
        chosen = np.random.default_rng(0).choice(len(rows), _MOST_ROWS, replace=False)
        rows = rows.take(pa.array(np.sort(chosen)))
    logits = engine.logits(rows["text"].to_pylist())
    found = {**origin, **calibration_of(logits, label_ids(rows), wanted_accuracy)}
    write_json(engine.model_dir / CALIBRATION, found)
    return found


def calibration_line(found: dict[str, Any]) -> str:
    """One line on a calibration, for people."""
    rule = found["abstention"]
    if found["reason"]:
        scaled = f"temperature 1 ({found['reason']})"
    else:
        scaled = (
            f"temperature {found['temperature']:.3f}, ECE {found['ece_before']:.3f} -> "
            f"{found['ece_after']:.3f}"
        )
    if rule["threshold"] is None:
        return f"{scaled}; no abstention threshold ({rule['reason']})"
    return (
        f"{scaled}; accuracy {rule['wanted_accuracy']:g} from confidence {rule['threshold']:.3f} "
        f"on, which covers {rule['coverage']:.1%}"
    )
