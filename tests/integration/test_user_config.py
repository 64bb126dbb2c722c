"""A `user_config` with an error, as `serve deploy` sends it: refused or shown, never an outage.

tests/unit/test_live.py has what a service does with one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.launch.ports import free_port
from tests.commands import wait_until


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of Serve on the session's Ray."""
    from ray import serve

    port = free_port("127.0.0.1")
    serve.start(http_options=serve.HTTPOptions(host="127.0.0.1", port=port))
    try:
        yield port
    finally:
        serve.shutdown()


def deploy(root: Path, user_config: dict[str, Any]) -> None:
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    deployment = {"name": "Gateway", "user_config": user_config}
    application = {
        "name": "finsent",
        "route_prefix": "/",
        "import_path": "serve_app.graph:app",
        "args": {"storage.root": str(root), "engine.precision": "fp32", "engine.threads": 1},
        "deployments": [deployment],
    }
    client: Any = _get_global_client()
    client.deploy_apps(ServeDeploySchema(applications=[application]))


def status() -> Any:
    from ray import serve

    return serve.status().applications["finsent"]


@pytest.mark.cost(12, "starts replicas, one after another")
def test_a_typo_is_refused_at_the_start_and_shown_later(port: int, served_root: Path) -> None:
    deploy(served_root, {"modle": "champion"})
    wait_until(lambda: status().status == "DEPLOY_FAILED", 120, "the deployment to fail")
    gateway = status().deployments["Gateway"]
    assert "user_config.modle: unknown key. Use model, shadow" in gateway.message

    def info() -> Any:
        return httpx.get(f"http://127.0.0.1:{port}/info", timeout=30).json()

    deploy(served_root, {"model": "champion"})
    wait_until(lambda: status().status == "RUNNING", 120, "the service to start")
    assert info()["user_config_refused"] is None

    deploy(served_root, {"model": "champion", "limits": {"text": 3}})
    wait_until(lambda: info()["user_config_refused"] is not None, 120, "/info to show it")
    assert "serve.limits.text" in info()["user_config_refused"]
    assert status().status == "RUNNING"

    # A replica that dies is replaced, whatever the user_config says.
    [replica] = replicas()
    os.kill(replica, signal.SIGKILL)
    wait_until(lambda: bool(replicas() - {replica}), 120, "another replica")
    assert info()["user_config_refused"]

    deploy(served_root, {"model": "champion", "limits": {"texts": 3}})
    wait_until(lambda: info()["user_config_refused"] is None, 120, "the next one to be used")
    assert info()["limits"]["texts"] == 3


def replicas() -> set[int]:
    """Process ids of the gateways that run."""
    from ray.serve.context import _get_global_client

    client: Any = _get_global_client()
    details = client.get_serve_details()
    deployments = details["applications"]["finsent"]["deployments"]
    return {
        replica["pid"]
        for replica in deployments["Gateway"]["replicas"]
        if replica["state"] == "RUNNING"
    }
