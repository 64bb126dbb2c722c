"""Ctrl-C at the service: the answers that wait for the next write of the log are stored."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from finsent.prediction_log import read, verify
from finsent.storage import Location
from tests.served import serving


def test_ctrl_c_stores_the_answers_that_wait(served_root: Path) -> None:
    root = Location.at(served_root)
    with serving(
        served_root, "port=0", "serve.grpc_port=0", "serve.record=true", "serve.record_seconds=600"
    ) as service:
        request_ids = []
        end = time.monotonic() + 3  # the gateway sends every 0.5 seconds
        while time.monotonic() < end:
            request_ids.append(service.ask()["request_id"])
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=120) == 0, service.log.read_text()
    stored = {row["request_id"] for batch in read(root) for row in batch.to_pylist()}
    assert request_ids[0] in stored
    assert verify(root).problems == ()
