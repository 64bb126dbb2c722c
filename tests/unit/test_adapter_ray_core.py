"""The ground of `finsent.adapters.ray_core`, which an upgrade of Ray may take away."""

from __future__ import annotations

import inspect
import os
import threading
from importlib import import_module
from pathlib import Path

import pytest

from finsent.adapters import ray_core
from finsent.cluster import Cluster


def source_of(module: str) -> str:
    return inspect.getsource(import_module(module))


def test_a_ray_that_starts_in_the_block_listens_on_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import ray_constants
    from ray._private.services import get_node_ip_address

    # Of a Ray that an earlier test of this process has started.
    monkeypatch.setattr("ray._private.worker._global_node", None)
    before = ray_constants.ENABLE_RAY_CLUSTER
    with ray_core.loopback_only():
        assert get_node_ip_address() == "127.0.0.1"
    assert before == ray_constants.ENABLE_RAY_CLUSTER


@pytest.mark.parametrize("worker_logs", [True, False])
def test_a_lean_node_starts_no_unused_process(worker_logs: bool) -> None:
    from ray._private.node import Node

    starts = ["start_monitor", "start_api_server", "start_log_monitor"]
    before = [getattr(Node, name) for name in starts]
    source = source_of("ray._private.node")
    assert all(f"self.{name}(" in source for name in starts), "Ray has changed; adapt lean_node"
    with ray_core.lean_node(worker_logs=worker_logs):
        inside = [getattr(Node, name) for name in starts]
        is_replaced = [new is not old for new, old in zip(inside, before, strict=True)]
        assert is_replaced == [True, True, not worker_logs]
        inside[1](object(), include_dashboard=False, raise_on_failure=False)
    assert [getattr(Node, name) for name in starts] == before


def test_ray_still_says_that_a_start_timed_out() -> None:
    assert ray_core._START_TIMEOUT in source_of("ray._private.node")
    assert ray_core.is_start_timeout(Exception("The current node timed out during startup."))
    assert not ray_core.is_start_timeout(Exception("no space"))


def test_the_longest_socket_is_one_of_rays() -> None:
    text = source_of("ray._private.node")
    assert "session_" in text and "plasma_store" in text and "sockets" in text


def test_threads_of_ray_data_are_found_by_their_name() -> None:
    data = Path(import_module("ray.data").__file__ or "").parent
    sources = (file.read_text() for file in data.rglob("*.py"))
    assert any(ray_core._READER_THREAD in text for text in sources)
    ended = threading.Event()
    reader = threading.Thread(target=ended.set, name=f"{ray_core._READER_THREAD}")
    reader.start()
    ray_core.join_reader_threads()
    assert ended.is_set() and not reader.is_alive()


def test_the_token_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ray_core.protect_auth_token()  # there is none
    token = tmp_path / ray_core._AUTH_TOKEN
    token.parent.mkdir()
    token.touch(mode=0o644)
    ray_core.protect_auth_token()
    assert token.stat().st_mode & 0o777 == 0o600
    assert os.access(token, os.R_OK)


def test_ray_data_has_the_switches_that_are_set() -> None:
    from ray.data import DataContext

    fields = vars(DataContext())
    assert {"enable_progress_bars", "use_datasource_v2"} <= fields.keys()


def test_serve_reports_its_endpoints() -> None:
    from ray.serve import context
    from ray.serve._private import client, controller

    assert (
        "raise_if_no_controller_running" in inspect.signature(context._get_global_client).parameters
    )
    assert "http_config" in vars(client.ServeControllerClient)
    assert "def get_grpc_config" in inspect.getsource(controller)


def test_resources_of_machines_add_up() -> None:
    nodes = [
        ray_core.Node("1", "a", {"CPU": 4.0, "GPU": 1.0, "memory": 8e9}),
        ray_core.Node("2", "b", {"CPU": 3.0}),
    ]
    cluster = Cluster(nodes)
    assert (cluster.cpus, cluster.gpus, cluster.nodes[0].memory) == (7, 1.0, 8_000_000_000)
    assert cluster.slots(2) == 3
    assert cluster.slots(1, gpus=0.5) == 2
    assert cluster.slots(8) == 0
