"""The deployment of a service: when it is ready, and what it does when Serve fails to start."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import ray
from ray import serve
from ray.exceptions import ActorDiedError
from ray.serve import context

from finsent.errors import InputError
from serve_app.config import ServeConfig
from serve_app.graph import NAME
from serve_app.launch import deployment


def states(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Let Serve report these states one after another, while an old replica answers."""
    remaining = list(names)

    def status() -> SimpleNamespace:
        app = SimpleNamespace(
            status=remaining.pop(0), message="RuntimeError: no such model", deployments={}
        )
        return SimpleNamespace(applications={NAME: app})

    monkeypatch.setattr(serve, "status", status)
    monkeypatch.setattr(deployment, "is_ready", lambda _: True)
    return remaining


def test_old_replicas_that_answer_do_not_hide_new_ones_that_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states(monkeypatch, "DEPLOYING", "DEPLOYING", "DEPLOY_FAILED")
    with pytest.raises(InputError, match="did not start: RuntimeError: no such model"):
        deployment.wait_until_running(ServeConfig(port=9), time.monotonic() + 20)


def test_service_is_ready_when_the_new_replicas_are(monkeypatch: pytest.MonkeyPatch) -> None:
    remaining = states(monkeypatch, "DEPLOYING", "RUNNING")
    deployment.wait_until_running(ServeConfig(port=9), time.monotonic() + 20)
    assert remaining == []


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """Return the errors of the next starts of Serve; None is a start that succeeds."""
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
    deployment.start_serve(ServeConfig(), time.monotonic() + 20)
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
    deployment.start_serve(ServeConfig(), time.monotonic() + 20)
    assert starts == []


def test_serve_that_does_not_start_in_time_is_an_error_of_one_line(
    starts: list[BaseException | None],
) -> None:
    starts += [ActorDiedError()] * 100
    with pytest.raises(
        InputError, match=r"^serve\.start_timeout=120: Ray Serve .*actor died"
    ) as error:
        deployment.start_serve(ServeConfig(), time.monotonic() + 0.01)
    assert "\n" not in str(error.value)
