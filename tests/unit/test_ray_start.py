"""A local Ray that does not start."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray._private.services import get_node_ip_address

from finsent.errors import InputError
from ray_jobs._ray import _start_local

LATE = "The current node timed out during startup. This could happen because"


@pytest.mark.parametrize(
    ("problem", "raised", "said"),
    [
        (Exception(LATE), InputError, "did not start within its 30 seconds"),
        (RuntimeError("no space"), RuntimeError, "no space"),
    ],
)
def test_only_what_takes_too_long_is_the_machines_fault(
    problem: Exception, raised: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**settings: Any) -> None:
        assert settings["num_cpus"] == 4
        assert get_node_ip_address() == "127.0.0.1", "Ray listens on it"
        raise problem

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(raised, match=said):
        _start_local(4, worker_logs=False)
