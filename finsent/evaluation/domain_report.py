"""What a calibration for a domain changed, for the terminal and for programs."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from finsent.modeling.domain_calibration import DomainCalibration, DomainMetrics, Figure

_SHOWN = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "ece": "ECE",
    "answered": "accuracy of the answered share",
}
_FEW_ANSWERED = 20  # rows; the interval of an accuracy of 0.9 is 0.27 wide there
_NOT_SHOWN = {"keys", "rows_digest", "schema_version", "sources", "threshold_reason"}


def gain_table(found: DomainCalibration) -> Table:
    """Return the figures before and after, with their 95 % intervals."""
    rows = f"{found.rows} rows"
    if found.texts < found.rows:
        rows += f" ({found.texts} where near copies count as one)"
    table = Table("", "before", "after", title=f"{found.name}: {rows}, {found.folds} folds")
    for name, title in _SHOWN.items():
        table.add_row(title, *(_figure(getattr(one, name)) for one in (found.before, found.after)))
    table.add_row("answered share", _coverage(found.before), _coverage(found.after))
    return table


def gain_lines(found: DomainCalibration) -> list[str]:
    """Return what was fitted, and what to mind, one line each."""
    lines = [f"temperature {found.temperature:.3f}, biases {shown_biases(found.biases)}"]
    if found.threshold_reason is not None:
        lines.append(
            f"abstains from every row: {found.threshold_reason}; add rows, or lower "
            "evaluate.wanted_accuracy"
        )
    else:
        lines.append(
            f"abstains below {found.threshold:.3f}, for an accuracy of {found.wanted_accuracy:g}"
        )
        lines += _doubts(found)
    for name, answers in found.exports.items():
        lines.append(
            f"{name}: label of {answers.same_labels:.1%} and abstention of "
            f"{answers.same_abstentions:.1%} of the rows as {found.fitted_with}, which the "
            "calibration was fitted with"
        )
    if found.refusal is not None:
        lines.append(f"forced although {found.refusal}")
    return lines


def shown_biases(biases: dict[str, float]) -> str:
    """Return biases by label, for people."""
    return ", ".join(f"{label} {bias:+.2f}" for label, bias in biases.items())


def _doubts(found: DomainCalibration) -> list[str]:
    """Return why the threshold may not keep its promise."""
    answered, reached = found.after.answered, round((found.after.coverage or 0) * found.texts)
    if reached < _FEW_ANSWERED:
        copies = ", where near copies count as one" if found.texts < found.rows else ""
        return [
            f"the threshold is uncertain: cross-validation answered only {reached} of "
            f"{found.texts} rows{copies}. Add rows, or lower evaluate.wanted_accuracy."
        ]
    if answered.interval is not None and answered.interval[1] < found.wanted_accuracy:
        return [
            f"the threshold did not keep its promise in cross-validation: {_figure(answered)} of "
            f"the answered rows are right, {found.wanted_accuracy:g} are wanted. Add rows."
        ]
    return []


def summary(found: DomainCalibration) -> dict[str, Any]:
    """Return a calibration without its long lists, JSON-able."""
    return found.model_dump(mode="json", exclude=_NOT_SHOWN)


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    if figure.interval is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.interval[0]:.3f} to {figure.interval[1]:.3f})"


def _coverage(measured: DomainMetrics) -> str:
    return "all" if measured.coverage is None else f"{measured.coverage:.1%}"
