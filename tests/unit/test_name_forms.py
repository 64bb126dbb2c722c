"""Errors of names state the form of a name in words, and show no regular expression."""

from __future__ import annotations

import pytest

from finsent.config import load
from finsent.errors import ConfigError
from ray_jobs._settings import JobSettings


@pytest.mark.parametrize(
    ("override", "error"),
    [
        (
            "run.name=a b",
            "run.name='a b': must be letters, digits, dots, - and _, and begin with a letter or a "
            "digit. The default is null.",
        ),
        (
            "data.name=News",
            "data.name='News': must be small letters, digits, dots, - and _, and begin with a "
            "letter or a digit. The default is financial-sentiment.",
        ),
        (
            "evaluate.calibration=My Tweets",
            "evaluate.calibration='My Tweets': not a valid name. Write small letters, digits, - or "
            "_, e.g. tweets. The default is null.",
        ),
    ],
)
def test_the_form_of_a_name_is_in_words(override: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(JobSettings, [], [override])
    assert str(caught.value) == error


@pytest.mark.parametrize("name", ["a", "Run-1.b_2", "9"])
def test_names_of_runs_are_accepted(name: str) -> None:
    assert load(JobSettings, [], [f"run.name='{name}'"]).run.name == name
