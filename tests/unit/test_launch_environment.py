"""The environment of Ray Serve's processes: what the user has set wins, and nothing is left."""

from __future__ import annotations

import os

import pytest

from serve_app.launch.environment import environment, unless_set

NAME = "FINSENT_TEST_VARIABLE"


def test_value_of_the_user_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    assert unless_set({NAME: "ours"}) == {NAME: "ours"}
    monkeypatch.setenv(NAME, "theirs")
    assert unless_set({NAME: "ours"}) == {NAME: "theirs"}


@pytest.mark.parametrize("before", [None, "before"])
def test_variables_are_restored_also_after_an_error(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is None:
        monkeypatch.delenv(NAME, raising=False)
    else:
        monkeypatch.setenv(NAME, before)
    with pytest.raises(OSError, match="disk"), environment({NAME: "inside"}):
        assert os.environ[NAME] == "inside"
        raise OSError("disk")
    assert os.environ.get(NAME) == before
