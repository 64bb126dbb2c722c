"""The prediction log: one line per answer, one file per day."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from finsent.disk import translate_disk_errors
from finsent.files import append_lines
from serve_app.deployments.branches import Branch
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.answer import Answer, AnswerListener
from serve_app.service.coalescer import Timing
from serve_app.service.service import Service


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer on its way to the prediction log."""

    time: float  # Unix time
    sender: Sender
    answer: Answer
    text: str
    keeps_text: bool  # else the log has only the text's SHA-256


def record_listener(service: Service, branch: Branch[RecordedAnswer]) -> AnswerListener:
    """Return a listener that offers each answer to the recorder."""

    def listener(
        sender: Sender, texts: Sequence[Any], answers: Sequence[Answer | Problem], _: Timing
    ) -> None:
        now, keeps_text = time.time(), service.config.log_texts
        branch.offer(
            [
                RecordedAnswer(now, sender, answer, text, keeps_text)
                for text, answer in zip(texts, answers, strict=True)
                if isinstance(answer, Answer)
            ]
        )

    return listener


def write(folder: Path, items: Iterable[RecordedAnswer]) -> int:
    """Append answers to the files of their days (UTC); return how many.

    Equal texts have equal digests, so a log without texts still shows repeated ones.
    """
    lines: dict[str, list[bytes]] = {}
    for item in items:
        when = datetime.fromtimestamp(item.time, UTC)
        lines.setdefault(f"{when:%Y-%m-%d}", []).append(_line(item, when))
    folder.mkdir(parents=True, exist_ok=True)
    for day, day_lines in lines.items():
        with translate_disk_errors(folder, "storage.root"):
            append_lines(folder / f"{day}.jsonl", b"\n".join(day_lines) + b"\n")
    return sum(map(len, lines.values()))


def _line(item: RecordedAnswer, when: datetime) -> bytes:
    answer, prediction = item.answer, item.answer.prediction
    line = {
        "time": when.isoformat(timespec="milliseconds"),
        "request_id": item.sender.request_id,
        "key": item.sender.key,
        "model_version": answer.model_version,
        "calibration": answer.calibration,
        "label": prediction.label,
        "score": prediction.score,
        "probabilities": prediction.probabilities,
        "abstained": prediction.abstained,
        "truncated": answer.truncated,
        "characters": len(item.text),
        "text_sha256": hashlib.sha256(item.text.encode()).hexdigest(),
    }
    if item.keeps_text:
        line["text"] = item.text
    return orjson.dumps(line)
