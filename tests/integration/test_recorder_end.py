"""The recorder under Serve: answers that wait in its memory are stored when the service ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finsent.inference.engine import Prediction
from finsent.prediction_log import LoggedPrediction, read, verify
from finsent.storage import Location
from serve_app.deployments.recorder import RecordedAnswer
from serve_app.sender import Sender
from serve_app.service.answer import Answer
from serve_app.service.coalescer import Timing
from serve_app.settings import load_service


@pytest.fixture(scope="module")
def running_serve() -> Iterator[None]:
    """Serve without HTTP on the session's Ray."""
    from ray import serve

    serve.start(proxy_location="Disabled")
    try:
        yield
    finally:
        serve.shutdown()


def recorded_answer(text_id: str) -> RecordedAnswer:
    probabilities = {"negative": 0.1, "neutral": 0.2, "positive": 0.7}
    answer = Answer(Prediction("positive", 0.7, probabilities), [0.0, 0.7, 2.0], False, "v1", 5)
    return RecordedAnswer(
        text_id, time.time(), Sender("request-1"), answer, Timing(), "onnxruntime-fp32", 12, None
    )


@pytest.mark.usefixtures("running_serve")
def test_the_end_of_the_service_stores_the_waiting_answers(tmp_path: Path) -> None:
    from ray import serve

    from serve_app.graph import _recorder

    settings = load_service([], [f"storage.root={tmp_path}", "serve.record_seconds=600"])
    recorder = serve.run(_recorder(settings), name="recorder", route_prefix=None)
    ids = [f"text-{number}" for number in range(100)]
    for begin in range(0, 100, 50):
        items = [recorded_answer(text_id) for text_id in ids[begin : begin + 50]]
        assert recorder.record.remote(items).result(timeout_s=60) == 50
    root = Location.at(tmp_path)
    assert list(read(root)) == []  # the interval has not passed
    serve.delete("recorder")
    rows = [LoggedPrediction.from_row(row) for batch in read(root) for row in batch.to_pylist()]
    assert [row.id for row in rows] == ids
    assert verify(root).problems == ()
