"""Figures of a calibration for a domain, for terminal and job result."""

from __future__ import annotations

from dataclasses import fields

from rich.table import Table

from finsent.evaluation.results import CalibrationSummary
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.modeling.domain_record import DomainMetrics, Figure

_FIGURE_NAMES = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "ece": "ECE",
    "answered": "accuracy of the answered share",
}
_MIN_ANSWERED = 20  # rows; the interval of an accuracy of 0.9 is 0.27 wide on 20 rows


def gain_table(calibration: DomainCalibration) -> Table:
    """Return the figures before and after, with their 95 % intervals."""
    rows = f"{calibration.rows} rows"
    if calibration.texts < calibration.rows:
        rows += f" ({calibration.texts} where near copies count as one)"
    table = Table(
        "", "before", "after", title=f"{calibration.name}: {rows}, {calibration.folds} folds"
    )
    for name, title in _FIGURE_NAMES.items():
        table.add_row(
            title,
            *(
                _figure(getattr(metrics, name))
                for metrics in (calibration.before, calibration.after)
            ),
        )
    table.add_row("answered share", _coverage(calibration.before), _coverage(calibration.after))
    return table


def gain_lines(calibration: DomainCalibration) -> list[str]:
    """Return the fitted numbers and the warnings, one per line."""
    lines = [f"temperature {calibration.temperature:.3f}, biases {biases_line(calibration.biases)}"]
    if calibration.threshold_reason is not None:
        lines.append(
            f"abstains from every row: {calibration.threshold_reason}. Add rows, or lower "
            "evaluate.wanted_accuracy."
        )
    else:
        lines.append(
            f"abstains below {calibration.threshold:.3f}, for an accuracy of "
            f"{calibration.wanted_accuracy:g}"
        )
        lines += _threshold_warnings(calibration)
    for name, answers in calibration.exports.items():
        lines.append(
            f"{name}: label of {answers.same_labels:.1%} and abstention of "
            f"{answers.same_abstentions:.1%} of the rows as {calibration.fitted_with}, which the "
            "calibration was fitted with"
        )
    if calibration.refusal is not None:
        lines.append(f"forced although {calibration.refusal}")
    return lines


def biases_line(biases: dict[str, float]) -> str:
    """Return the biases by label in one line."""
    return ", ".join(f"{label} {bias:+.2f}" for label, bias in biases.items())


def _threshold_warnings(calibration: DomainCalibration) -> list[str]:
    """Return why the threshold may not reach the wanted accuracy."""
    answered, answered_count = (
        calibration.after.answered,
        round((calibration.after.coverage or 0) * calibration.texts),
    )
    if answered_count < _MIN_ANSWERED:
        copies = ", where near copies count as one" if calibration.texts < calibration.rows else ""
        return [
            f"the threshold is uncertain: cross-validation answered only {answered_count} of "
            f"{calibration.texts} rows{copies}. Add rows, or lower evaluate.wanted_accuracy."
        ]
    if answered.interval is not None and answered.interval[1] < calibration.wanted_accuracy:
        return [
            "the threshold did not reach the wanted accuracy in cross-validation: "
            f"{_figure(answered)} of the answered rows are right, "
            f"{calibration.wanted_accuracy:g} are wanted. Add rows."
        ]
    return []


def summary(calibration: DomainCalibration) -> CalibrationSummary:
    """Return a calibration without its long lists."""
    keys = [field.name for field in fields(CalibrationSummary)]
    return CalibrationSummary(**{key: getattr(calibration, key) for key in keys})


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    if figure.interval is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.interval[0]:.3f} to {figure.interval[1]:.3f})"


def _coverage(measured: DomainMetrics) -> str:
    return "all" if measured.coverage is None else f"{measured.coverage:.1%}"
