"""The clients and the load balancer of `benchmarks.faults`, with servers that die and fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from benchmarks.faults.balancer import balancer
from benchmarks.faults.load import open_loop
from tests.commands import wait_until


class Node(BaseHTTPRequestHandler):
    """A node's proxy: healthy, and its server's status for each prediction."""

    status = 200
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(self.status)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class FailingNode(Node):
    status = 503


@contextmanager
def serving(handler: type[Node]) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_failures_are_counted_by_status() -> None:
    with (
        serving(FailingNode) as server,
        open_loop(f"http://127.0.0.1:{server.server_port}", rate=200) as answers,
    ):
        wait_until(lambda: answers.count >= 10, 60, "answers")
    assert answers.seconds == []
    assert set(answers.failures) == {"503"}


def test_connections_that_nobody_accepts_are_failures() -> None:
    with serving(Node) as server:
        port = server.server_port
    with open_loop(f"http://127.0.0.1:{port}", rate=200) as answers:
        wait_until(lambda: answers.count >= 3, 60, "errors")
    assert set(answers.failures) == {"ConnectError"}


def test_no_request_fails_when_one_of_two_nodes_dies(tmp_path: Path) -> None:
    with ExitStack() as stack, serving(Node) as remaining:
        dying = stack.enter_context(serving(Node))
        ports = [server.server_port for server in (remaining, dying)]
        with balancer([f"127.0.0.1:{port}" for port in ports], tmp_path) as address:
            wait_until(lambda: is_listening(address), 60, "HAProxy")
            with open_loop(address, rate=200) as answers:
                wait_until(lambda: len(answers.seconds) > 20, 60, "answers")
                stack.close()
                count = len(answers.seconds)
                wait_until(lambda: len(answers.seconds) > count + 20, 60, "answers")
    assert not answers.failures


def is_listening(address: str) -> bool:
    try:
        return httpx.get(address, timeout=1).status_code == 200
    except httpx.HTTPError:
        return False
