"""The table of search algorithms and the table of schedulers."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import get_args

import pytest

from tune.algorithms import (
    SCHEDULERS,
    SEARCH_ALGORITHMS,
    SchedulerName,
    SearchName,
    summaries,
)
from tune.config import SweepConfig

pytestmark = pytest.mark.cost(1.5, "imports Ray Tune and Optuna")


def test_each_name_has_a_row() -> None:
    assert tuple(SEARCH_ALGORITHMS) == get_args(SearchName)
    assert tuple(SCHEDULERS) == get_args(SchedulerName)


@pytest.mark.parametrize(
    "function",
    [
        *(algorithm.sampler for algorithm in SEARCH_ALGORITHMS.values()),
        *(scheduler.factory for scheduler in SCHEDULERS.values()),
    ],
)
def test_each_row_names_a_function(function: str) -> None:
    assert callable(resolve_name(function))


def test_the_help_names_each_algorithm() -> None:
    fields = SweepConfig.model_fields
    assert summaries(SEARCH_ALGORITHMS) in (fields["search"].description or "")
    assert summaries(SCHEDULERS) in (fields["scheduler"].description or "")
