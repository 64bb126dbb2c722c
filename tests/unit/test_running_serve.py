"""A service on a cluster that runs Serve already; tests/e2e deploys one."""

from __future__ import annotations

from typing import Any

import pytest

from finsent.adapters.ray_serve_launch import ServeEndpoints
from finsent.errors import InputError
from serve_app.config import ServeConfig
from serve_app.launch.running import with_endpoints

BOTH = ServeEndpoints("0.0.0.0", 8310, 8311)
HTTP = ServeEndpoints("127.0.0.1", 8310, None)


@pytest.mark.parametrize(
    ("endpoints", "requested", "problem"),
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
def test_ports_that_serve_does_not_listen_on_are_refused(
    endpoints: ServeEndpoints, requested: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        with_endpoints(ServeConfig(**requested), endpoints)


@pytest.mark.parametrize(
    ("endpoints", "requested"),
    [
        (HTTP, {"port": 8310}),
        (HTTP, {"port": 0}),
        (BOTH, {"port": 0, "grpc_port": 0}),
        (BOTH, {"port": 8310, "grpc_port": 8311}),
        (BOTH, {"port": 8310}),
        (BOTH, {"port": 8310, "host": "0.0.0.0"}),
    ],
)
def test_settings_get_the_ports_of_the_running_serve(
    endpoints: ServeEndpoints, requested: dict[str, Any]
) -> None:
    config = with_endpoints(ServeConfig(**requested), endpoints)
    expected = (endpoints.host, endpoints.port, endpoints.grpc_port)
    assert (config.host, config.port, config.grpc_port) == expected
