"""The recorder: answers of requests become rows of the prediction log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from finsent.inference.config import EngineConfig
from finsent.labels import LABELS
from finsent.prediction_log import LoggedPrediction, read
from finsent.registry.registry import Registry
from finsent.storage import Location
from serve_app.config import ServeConfig
from serve_app.deployments import branches
from serve_app.deployments.branches import Branch
from serve_app.deployments.recorder import RecordedAnswer, Recorder, record_listener
from serve_app.sender import Sender
from serve_app.service.service import Service
from tests.disks import file_limit
from tests.unit.models import TEXTS, published

pytestmark = pytest.mark.usefixtures("keep_threads")

ENGINE = EngineConfig(precision="fp32", threads=1)


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return published(tiny, tmp_path_factory.mktemp("recorder"), ENGINE, ("champion", "challenger"))


def offered(registry: Registry, config: ServeConfig, texts: list[Any]) -> list[RecordedAnswer]:
    """Return what the gateway sends to the recorder for one request."""
    items: list[RecordedAnswer] = []

    async def send(batch: list[RecordedAnswer]) -> None:
        items.extend(batch)

    async def main() -> None:
        service = Service(registry.root, config, ENGINE)
        await service.models.follow()
        branch = Branch("recorder", send)
        service.answer_listeners.append(record_listener(service, branch))
        await service.answer(texts, None, Sender("request-1", "desk"))
        await branch.close()

    asyncio.run(main())
    return items


def rows_of(root: Location) -> list[LoggedPrediction]:
    return [LoggedPrediction.from_row(row) for batch in read(root) for row in batch.to_pylist()]


@pytest.mark.parametrize("with_text", [False, True])
def test_answers_become_rows_without_texts_unless_configured(
    registry: Registry, tmp_path: Path, with_text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches, "_GATHER_SECONDS", 0.01)
    items = offered(registry, ServeConfig(log_texts=with_text), [*TEXTS, ""])
    root = Location.at(tmp_path)

    async def main() -> None:
        recorder = Recorder(root, flush_seconds=3600)
        assert recorder.record(items) == len(TEXTS)
        await recorder.close()

    asyncio.run(main())
    rows = rows_of(root)
    assert len({row.id for row in rows}) == len(TEXTS)
    for text, row in zip(TEXTS, rows, strict=True):
        assert row.text == (text if with_text else None)
        assert row.characters == len(text)
        assert (row.request_id, row.key) == ("request-1", "desk")
        assert row.model_version == registry.aliases()["champion"]
        assert row.backend is not None
        assert row.probabilities[row.label] == row.confidence
        assert set(row.probabilities) == set(LABELS)


def test_rows_are_stored_at_intervals_also_after_a_full_disk(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items, root = offered(registry, ServeConfig(), TEXTS), Location.at(tmp_path)

    async def main() -> None:
        recorder = Recorder(root, flush_seconds=0.01)
        with file_limit(50):
            recorder.record(items)
            async with asyncio.timeout(20):
                while "too large" not in caplog.text:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            while not rows_of(root):
                await asyncio.sleep(0.01)
        recorder.record([])
        await recorder.close()

    asyncio.run(main())
    assert [row.id for row in rows_of(root)] == [item.id for item in items]


def test_a_last_call_without_an_answer_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(branches, "_LAST_SEND_SECONDS", 0.01)

    async def send(_: list[str]) -> None:
        await asyncio.Event().wait()  # the recorder does not answer

    async def main() -> None:
        branch = Branch("recorder", send)
        branch.offer(["item"])
        await branch.close()

    asyncio.run(main())
    assert "recorder: the last items may be lost" in caplog.text
