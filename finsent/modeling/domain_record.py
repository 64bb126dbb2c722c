"""Figures of a calibration for a domain, as results and the calibration's file store them.

Imports no NumPy: jobs describe their results by these types.
"""

from __future__ import annotations

from pydantic import ConfigDict

from finsent.records import Record


class DomainRecord(Record):
    """A record whose numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class Figure(DomainRecord):
    """A figure with its 95 % interval; None where it is undefined."""

    value: float | None
    interval: tuple[float, float] | None


class DomainMetrics(DomainRecord):
    """Metrics on labeled rows of the domain."""

    macro_f1: Figure
    accuracy: Figure
    log_loss: Figure
    ece: Figure
    coverage: float | None  # share of rows answered; None: the model never abstains
    answered: Figure  # accuracy among the answered rows


class ExportAnswers(DomainRecord):
    """Shares of the rows with the same answer from an export and from the fitted form."""

    same_labels: float
    same_abstentions: float
