"""What the job that serves waits for; tests/e2e runs it."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import ray
from ray import serve
from ray.exceptions import ActorDiedError
from ray.serve import context

from finsent.errors import InputError
from ray_jobs import serve as job
from serve_app.config import ServeConfig
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
        job._wait(ServeConfig(port=9), time.monotonic() + 20)


def test_it_is_ready_when_the_new_replicas_are(monkeypatch: pytest.MonkeyPatch) -> None:
    left = states(monkeypatch, "DEPLOYING", "RUNNING")
    job._wait(ServeConfig(port=9), time.monotonic() + 20)
    assert left == []


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What the next starts of Serve raise; there is no controller before one has succeeded."""
    raised: list[BaseException | None] = []

    def start(**_: object) -> None:
        error = raised.pop(0)
        if error is not None:
            raise error

    monkeypatch.setattr(serve, "start", start)
    monkeypatch.setattr(context, "_get_global_client", lambda **_: None)
    return raised


def test_serve_is_started_again_after_its_controller_has_died(
    starts: list[BaseException | None],
) -> None:
    starts += [ActorDiedError(), None]
    job._start_serve(ServeConfig(), time.monotonic() + 20)
    assert starts == []


@pytest.mark.parametrize("error", [ActorDiedError(), TimeoutError("HTTP proxies not available")])
def test_controller_that_lives_starts_another_proxy(
    error: BaseException, starts: list[BaseException | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call() -> SimpleNamespace:
        return SimpleNamespace(port=0, grpc_servicer_functions=[])

    controller = SimpleNamespace(get_grpc_config=SimpleNamespace(remote=call))
    client = SimpleNamespace(http_config=serve.HTTPOptions(port=8000), _controller=controller)
    monkeypatch.setattr(context, "_get_global_client", lambda **_: client)
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    starts.append(error)
    job._start_serve(ServeConfig(), time.monotonic() + 20)
    assert starts == []


def test_serve_that_does_not_start_in_time_is_one_line(
    starts: list[BaseException | None],
) -> None:
    starts += [ActorDiedError()] * 100
    with pytest.raises(
        InputError, match=r"^serve\.start_timeout=120: Ray Serve .*actor died"
    ) as error:
        job._start_serve(ServeConfig(), time.monotonic() + 0.01)
    assert "\n" not in str(error.value)
