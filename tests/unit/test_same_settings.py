"""A run resumes only under the settings with which it began."""

from __future__ import annotations

from typing import Any

import pytest

from finsent.errors import ConfigError
from finsent.same_settings import check_same

RECORDED: dict[str, Any] = {"train": {"epochs": 4, "weights": {"neutral": 1.0}}, "base": {"a": 1}}


def test_same_settings_pass() -> None:
    check_same(RECORDED, RECORDED, "run")
    check_same({**RECORDED, "removed": 1}, RECORDED, "run")  # of an older version
    check_same(RECORDED, {**RECORDED, "added": None}, "run")
    check_same(
        RECORDED, {**RECORDED, "train": {"epochs": 5}}, "run", fixed=["train.weights", "base"]
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train": {"epochs": 5}}, "train.epochs=4, now train.epochs=5. "),
        ({"train": {"weights": {"neutral": 2.0}}}, "train.weights.neutral=1.0, now "),
        (
            {"train": {"weights": "none"}},
            "train.weights={'neutral': 1.0}, now train.weights='none'",
        ),
        ({"base": None}, "base={'a': 1}, now base=None. "),
        ({"added": 1}, "added=None, now added=1. "),
    ],
)
def test_the_first_changed_setting_is_named(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_same(RECORDED, changed, "run")
    text = str(caught.value)
    assert text.startswith("run.name='run': exists with ")
    assert words in text
    assert "Choose another name" in text


def test_a_key_that_the_user_has_removed_is_a_change() -> None:
    recorded = {
        "sweep": {"space": {"train.seed": {"int": [1, 9]}, "train.epochs": {"int": [1, 3]}}}
    }
    current = {"sweep": {"space": {"train.seed": {"int": [1, 9]}}}}
    check_same(recorded, current, "run")
    with pytest.raises(ConfigError, match=r"sweep\.space\.train\.epochs=\{'int': \[1, 3\]\}, now "):
        check_same(recorded, current, "run", mappings=["sweep.space"])


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        check_same({"inputs": ["a" * 500]}, {"inputs": []}, "run")
    assert len(str(caught.value)) < 300
