"""A local Ray that is slow to start."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from finsent.errors import InputError
from ray_jobs._ray import _start_local


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_it_gets_a_second_chance(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[dict[str, Any]] = []

    def init(**settings: Any) -> None:
        tried.append(settings)
        if len(tried) <= failures:
            raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    if failures == 2:
        with pytest.raises(InputError, match="did not start within 30 seconds, twice"):
            _start_local(4, worker_logs=False)
    else:
        _start_local(4, worker_logs=False)
    assert len(tried) == min(failures + 1, 2)
    assert tried[-1]["num_cpus"] == 4


def test_other_problems_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("no space")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RuntimeError, match="no space"):
        _start_local(4, worker_logs=False)
