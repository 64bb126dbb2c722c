"""Calibrate a model version for a domain: fit on few labeled rows, measure by cross-validation."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from finsent.data.config import NearConfig
from finsent.errors import InputError
from finsent.evaluation.calibration import label_ids
from finsent.evaluation.config import CalibrateConfig, EvaluateConfig
from finsent.evaluation.domain_exports import calibrated_logits, compare_exports
from finsent.evaluation.domain_fit import UNANSWERABLE_LOGIT, Fit, fit
from finsent.evaluation.domain_validation import (
    DomainAnswers,
    cross_validate,
    judge_own_calibration,
    log_loss_difference,
)
from finsent.evaluation.metrics import Floats, Ids
from finsent.evaluation.training_overlap import near_groups
from finsent.files import digest
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.modeling.domain_calibration import UNREACHABLE_THRESHOLD, DomainContent
from finsent.modeling.domain_record import Figure

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DomainRows:
    """Labeled rows of a domain with the version's answers."""

    keys: list[str]
    texts: list[str]
    labels: list[str]
    truth: Ids  # label ids
    logits: Floats  # of the version's calibrated probabilities, shape (rows, labels)
    groups: Ids  # group of near copies that each row is in, from 0

    @property
    def text_count(self) -> int:
        """Number of rows, where near copies count as one."""
        return int(self.groups.max()) + 1


@dataclass(frozen=True)
class _Validation:
    """Answers before and after a calibration, on rows that it was not fitted on."""

    folds: int
    before: DomainAnswers
    after: DomainAnswers
    log_loss_difference: Figure


def calibrate(
    engine: Engine,
    rows: pa.Table,
    version: str,
    sources: list[str],
    config: CalibrateConfig,
    measure: EvaluateConfig,
    near: NearConfig,
) -> DomainContent:
    """Fit a calibration on labeled rows of a domain, and measure it by cross-validation.

    Args:
        engine: of the version, with its own calibration.
        rows: with `key`, `text` and `label`; none that the model was trained on.
        sources: names of the files.
        measure: wanted accuracy, resamples and seed.
        near: how near copies are found. They stay on one side of each fold, are drawn together,
            and count as one row where rows are too few.

    Raises:
        InputError: rows are too few, or the calibration does not help, and it is not forced.
    """
    domain = _answer(engine, rows, config, near)
    reasons = too_few(domain.logits, domain.truth, domain.groups, config)
    _refuse_or_warn(reasons, config)
    validation = _validate(domain, engine.threshold, config, measure)
    if (reason := no_gain(validation.log_loss_difference)) is not None:
        _refuse_or_warn([reason], config)
        reasons.append(reason)
    final = fit(domain.logits, domain.truth, measure.wanted_accuracy)
    drawn = (domain.groups, measure.bootstrap, measure.seed)
    exports = compare_exports(
        engine, domain.texts, domain.logits, final.temperature, final.biases, final.threshold
    )
    return DomainContent(
        name=str(config.name),
        model_version=version,
        temperature=final.temperature,
        biases=dict(zip(LABELS, final.biases, strict=True)),
        threshold=min(final.threshold, 1.0),
        threshold_reason=_threshold_reason(final, measure.wanted_accuracy),
        wanted_accuracy=measure.wanted_accuracy,
        sources=tuple(sources),
        rows=len(domain.truth),
        texts=domain.text_count,
        rows_by_label={label: domain.labels.count(label) for label in LABELS},
        rows_digest=digest(sorted(zip(domain.keys, domain.labels, strict=True))),
        keys=tuple(domain.keys),
        folds=validation.folds,
        before=validation.before.measure(*drawn),
        after=validation.after.measure(*drawn),
        log_loss_difference=validation.log_loss_difference,
        fitted_with=engine.backend.name,
        exports=exports,
        refusal="; ".join(reasons) or None,
    )


def _answer(
    engine: Engine, rows: pa.Table, config: CalibrateConfig, near: NearConfig
) -> DomainRows:
    """Return rows with the version's answers and the groups of near copies.

    Raises:
        InputError: the answers are not numbers.
    """
    texts = rows["text"].to_pylist()
    logits = calibrated_logits(engine, texts)
    engine.check_numbers(logits, f"calibrate.model={config.model!r}")
    keys, labels = rows["key"].to_pylist(), rows["label"].to_pylist()
    groups = near_groups(rows["text"], near)
    domain = DomainRows(keys, texts, labels, label_ids(rows), logits, groups)
    if domain.text_count < len(rows):
        log.info(
            "calibrate: near copies make %d texts of the %d rows", domain.text_count, len(rows)
        )
    return domain


def _validate(
    domain: DomainRows, threshold: float | None, config: CalibrateConfig, measure: EvaluateConfig
) -> _Validation:
    """Judge the version's own calibration, and calibrations for the domain by cross-validation.

    Args:
        threshold: of the version; None: the model never abstains.
    """
    logits, truth, groups = domain.logits, domain.truth, domain.groups
    folds = min(config.folds, domain.text_count)
    before = judge_own_calibration(logits, truth, threshold)
    after = cross_validate(logits, truth, groups, folds, measure.wanted_accuracy)
    difference = log_loss_difference(
        before.answers, after.answers, groups, measure.bootstrap, measure.seed
    )
    return _Validation(folds, before, after, difference)


def _threshold_reason(final: Fit, wanted_accuracy: float) -> str | None:
    """Return why the model abstains from every row; None: it answers rows."""
    if final.threshold != UNREACHABLE_THRESHOLD:
        return None
    return f"no threshold reaches an accuracy of {wanted_accuracy:g}"


def too_few(logits: Floats, truth: Ids, groups: Ids, config: CalibrateConfig) -> list[str]:
    """Return why rows are too few to fit on; empty: enough rows.

    Args:
        groups: of each row. Near copies count as one row.
    """
    reasons = []
    texts = len(np.unique(groups))
    copies = f" (of {len(truth)}, the others are near copies)" if texts < len(truth) else ""
    if texts < config.min_rows:
        reasons.append(
            f"{texts} rows{copies} are too few, {config.min_rows} are needed (calibrate.min_rows)"
        )
    for label_id, label in enumerate(LABELS):
        count = len(np.unique(groups[truth == label_id]))
        if (logits[:, label_id] <= UNANSWERABLE_LOGIT).all():
            if count:
                log.warning("calibrate: the model never answers %s, as %d rows are", label, count)
        elif count < config.min_label_rows:
            reasons.append(
                f"{count} rows are {label}, {config.min_label_rows} are needed "
                "(calibrate.min_label_rows)"
            )
    return reasons


def no_gain(difference: Figure) -> str | None:
    """Return why a calibration does not help; None: it helps.

    The interval decides: a gain that may be chance does not count.
    """
    assert difference.value is not None and difference.interval is not None
    low, high = difference.interval
    if high < 0:
        return None
    return (
        f"the log loss of rows that it was not fitted on changes by {difference.value:+.3f} "
        f"(95 %: {low:+.3f} to {high:+.3f}), which is not a clear gain"
    )


def _refuse_or_warn(reasons: list[str], config: CalibrateConfig) -> None:
    if not reasons:
        return
    if not config.force:
        raise InputError(
            f"calibrate.sources={[source.uri for source in config.sources]}: "
            f"{'; '.join(reasons)}. Add labeled rows of the domain, or set calibrate.force=true."
        )
    log.warning("calibrate: forced although %s", "; ".join(reasons))
