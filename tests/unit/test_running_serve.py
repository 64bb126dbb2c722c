"""A service on a cluster that runs Serve already; tests/e2e deploys one."""

from __future__ import annotations

from typing import Any

import pytest

from finsent.errors import InputError
from ray_jobs._running import RunningServe, adopt
from serve_app.config import ServeConfig

BOTH = RunningServe("0.0.0.0", 8310, 8311)
HTTP = RunningServe("127.0.0.1", 8310, None)


@pytest.mark.parametrize(
    ("running", "asked", "problem"),
    [
        (
            HTTP,
            {"port": 8310, "host": "0.0.0.0"},
            r"serve\.host='0\.0\.0\.0': .*host '127\.0\.0\.1'\. Set serve\.host=127\.0\.0\.1",
        ),
        (BOTH, {"port": 8310, "host": "10.0.0.7"}, r"serve\.host='10\.0\.0\.7': .*0\.0\.0\.0"),
        (HTTP, {"port": 8320}, r"serve\.port=8320: .*port 8310\. Set serve\.port=8310"),
        (HTTP, {"port": 8310, "grpc_port": 8311}, r"serve\.grpc_port=8311: .*grpc_port=null"),
        (HTTP, {"port": 8310, "grpc_port": 0}, r"serve\.grpc_port=0: .*without this"),
        (BOTH, {"port": 0, "grpc_port": 8312}, r"serve\.grpc_port=8312: .*grpc_port=8311"),
    ],
)
def test_addresses_that_serve_does_not_have_are_refused(
    running: RunningServe, asked: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        adopt(ServeConfig(**asked), running)


@pytest.mark.parametrize(
    ("running", "asked"),
    [
        (HTTP, {"port": 8310}),
        (HTTP, {"port": 0}),
        (BOTH, {"port": 0, "grpc_port": 0}),
        (BOTH, {"port": 8310, "grpc_port": 8311}),
        (BOTH, {"port": 8310}),
        (BOTH, {"port": 8310, "host": "0.0.0.0"}),
    ],
)
def test_settings_get_the_addresses_of_the_running_serve(
    running: RunningServe, asked: dict[str, Any]
) -> None:
    real = adopt(ServeConfig(**asked), running)
    assert (real.host, real.port, real.grpc_port) == (running.host, running.port, running.grpc_port)
