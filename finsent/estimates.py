"""A measured figure with its confidence bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A figure with the bound of its unfavorable side."""

    value: float
    bound: float  # with 95 % confidence the true value is no worse
