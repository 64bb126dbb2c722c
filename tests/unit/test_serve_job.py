"""What the job that serves waits for; tests/e2e runs it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray import serve

from finsent.errors import InputError
from ray_jobs import serve as job
from serve_app.graph import NAME


def states(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Let Serve say these states one after another, while something answers at the address."""
    left = list(names)

    def status() -> SimpleNamespace:
        app = SimpleNamespace(
            status=left.pop(0), message="RuntimeError: no such model", deployments={}
        )
        return SimpleNamespace(applications={NAME: app})

    monkeypatch.setattr(serve, "status", status)
    monkeypatch.setattr(job, "_answers", lambda _: True)
    return left


def test_old_replicas_that_answer_do_not_hide_new_ones_that_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states(monkeypatch, "DEPLOYING", "DEPLOYING", "DEPLOY_FAILED")
    with pytest.raises(InputError, match="did not start: RuntimeError: no such model"):
        job._wait("http://127.0.0.1:9", 20)


def test_it_is_ready_when_the_new_replicas_are(monkeypatch: pytest.MonkeyPatch) -> None:
    left = states(monkeypatch, "DEPLOYING", "RUNNING")
    job._wait("http://127.0.0.1:9", 20)
    assert left == []
