"""The answer for one text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from finsent.inference.engine import Prediction
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.coalescer import Timing


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one text."""

    prediction: Prediction
    logits: list[float]
    truncated: bool
    model_version: str
    tokens: int  # that the model read, special ones included
    calibration: str | None = None  # name of the request's; None: the model's own


# One per text, in the order of the texts.
Answers: TypeAlias = list[Answer | Problem]
# Called with each request that was answered: its sender, texts, answers and timing.
AnswerListener: TypeAlias = Callable[
    [Sender, Sequence[Any], Sequence[Answer | Problem], Timing], None
]
