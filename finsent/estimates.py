"""A measured figure with its confidence bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A figure, and how bad its true value may be."""

    value: float
    bound: float  # with 95 % confidence the true value is no worse
