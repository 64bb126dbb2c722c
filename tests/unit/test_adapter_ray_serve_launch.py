"""Private parts of Ray Serve that starting a service depends on: an upgrade may remove them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import ray.serve
from ray.serve import api, context
from ray.serve._private.controller import ServeController

from serve_app.launch.environment import FAST, PLAIN
from serve_app.launch.ports import Ports
from serve_app.launch.private_haproxy import _environment

ADAPTER = "finsent/adapters/ray_serve_launch.py"


def test_client_of_a_running_serve_is_found_by_this_function() -> None:
    parameters = inspect.signature(context._get_global_client).parameters
    assert "raise_if_no_controller_running" in parameters, f"mend find_endpoints in {ADAPTER}"


def test_controller_returns_its_grpc_settings() -> None:
    assert hasattr(ServeController, "get_grpc_config"), f"mend find_endpoints in {ADAPTER}"


def test_deployment_without_waiting_has_these_arguments() -> None:
    parameters = inspect.signature(api._run).parameters
    missing = {"name", "route_prefix", "_blocking"} - parameters.keys()
    assert not missing, f"mend deploy in {ADAPTER}: {missing}"


def test_ray_serve_reads_each_variable_that_is_set() -> None:
    used = {*FAST, *PLAIN, *_environment(Path("x"), Path("y"), Ports(22_000))}
    sources = Path(ray.serve.__file__).parent.rglob("*.py")
    known = {name for path in sources for name in re.findall(r"\b[A-Z_]{8,}\b", path.read_text())}
    assert used <= known, f"mend serve_app/launch: Ray Serve does not read {used - known}"
