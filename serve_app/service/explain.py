"""The weight of each word in an answer."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.inference.encoder import Encoded, normalize_texts
from finsent.labels import LABELS
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.answer import Answer
from serve_app.service.coalescer import Timing
from serve_app.service.model import Model
from serve_app.service.service import Service

log = logging.getLogger(__name__)

Span = tuple[int, int]  # first character, and the one after the last


@dataclass(frozen=True, slots=True)
class WordWeight:
    """A word, or a group of words in a long text, and its effect on the answer."""

    text: str
    start: int  # first character in the explained text
    end: int  # the character after the last one
    attribution: float  # probability that the label loses without the word; below 0: gains
    by_label: dict[str, float]  # the same for each label


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer with the weights of its words."""

    answer: Answer
    timing: Timing
    text: str  # as the model reads it
    words: list[WordWeight]


async def explain(
    service: Service,
    text: Any,
    truncate: Truncate | None,
    sender: Sender,
    source: str | None = None,
) -> Explanation:
    """Weigh each word of a text by leaving it out (occlusion).

    Zeiler and Fergus 2014 (arXiv:1311.2901), for text as in Li et al. 2016 (arXiv:1612.08220): the
    attribution of a word is the probability that the label loses without the word. All variants of
    the text are one request in the queue, so they take turns with other requests.

    Raises:
        Problem: the text cannot be classified, the source is unknown, or the replica is overloaded.
    """
    model = service.model
    with model.in_use():
        return await _explain(service, model, text, truncate, sender, source)


async def _explain(
    service: Service,
    model: Model,
    text: Any,
    truncate: Truncate | None,
    sender: Sender,
    source: str | None,
) -> Explanation:
    calibration = service.models.calibration(model, source)
    [answer], timing = await service.answer([text], truncate, sender, source)
    if isinstance(answer, Problem):
        raise answer
    [clean] = normalize_texts([text])
    word_spans = [match.span() for match in re.finditer(r"\S+", clean)]
    spans = _grouped(word_spans, service.config.limits.explain_words)
    variants = [f"{clean[:start]}{clean[end:]}" for start, end in spans]
    encoded = await service.encode(model, variants, truncate or model.engine.config.truncate)
    rows = [row.ids for row in encoded if isinstance(row, Encoded)]
    service.admission.admit(sum(map(len, rows)))
    logits, _ = await model.coalescer.run(rows)
    without = model.engine.calibrated(logits, calibration).astype(np.float64)
    losses = np.array([*answer.prediction.probabilities.values()]) - without
    label_column = LABELS.index(answer.prediction.label)
    words = [
        WordWeight(
            clean[start:end],
            start,
            end,
            float(row[label_column]),
            dict(zip(LABELS, row.tolist(), strict=True)),
        )
        for (start, end), row in zip(spans, losses, strict=True)
    ]
    return Explanation(answer, timing, clean, words)


async def follow_gateway(service: Service, model: str, calibrations: dict[str, str | None]) -> None:
    """Follow the model and the calibrations of a gateway.

    A model that cannot be loaded is logged, and the next call tries again.

    Args:
        model: alias or version.
        calibrations: by tag, as in `serve.calibrations`.
    """
    if (model, calibrations) == (service.models.reference, service.models.calibration_names):
        return
    service.apply(service.config.replaced(calibrations=calibrations))
    try:
        # A given reference is loaded at once; None waits after a refusal.
        await service.models.follow(None if model == service.models.reference else model)
    except InputError as error:
        log.error("model %r is refused: %s", model, error)


def _grouped(spans: list[Span], limit: int) -> list[Span]:
    """Join neighboring words so that there are at most `limit` groups."""
    size = -(-len(spans) // limit) if spans else 1
    return [
        (spans[i][0], spans[min(i + size, len(spans)) - 1][1]) for i in range(0, len(spans), size)
    ]
