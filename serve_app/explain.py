"""Which words pushed an answer which way."""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np

from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.inference.encoder import Encoded, normalize_texts
from finsent.labels import LABELS
from serve_app.coalescer import Timing
from serve_app.incoming import Asker
from serve_app.model import Model
from serve_app.problems import Problem
from serve_app.service import Answer, Service

log = logging.getLogger(__name__)


async def explain(
    service: Service,
    text: Any,
    truncate: Truncate | None,
    asker: Asker,
    source: str | None = None,
) -> tuple[Answer, Timing, str, list[dict[str, Any]]]:
    """How much each word of a text speaks for its label, by leaving it out (occlusion).

    Zeiler and Fergus 2014 (arXiv:1311.2901), for text as in Li et al. 2016 (arXiv:1612.08220): a
    word's attribution is the probability that the label loses when the word is not there; below 0
    it speaks against it. All variants go through the queue as one request, which takes turns.

    Returns:
        The answer, how it fared, the text as the model reads it, and its words.

    Raises:
        Problem: the text can't be classified, the source is unknown, or overloaded.
    """
    model = service.model
    with model.used():
        return await _explain(service, model, text, truncate, asker, source)


async def _explain(
    service: Service,
    model: Model,
    text: Any,
    truncate: Truncate | None,
    asker: Asker,
    source: str | None,
) -> tuple[Answer, Timing, str, list[dict[str, Any]]]:
    calibration = service.calibration(model, source)
    [answer], timing = await service.answer([text], truncate, asker, source)
    if isinstance(answer, Problem):
        raise answer
    [clean] = normalize_texts([text])
    spans = _groups(
        [match.span() for match in re.finditer(r"\S+", clean)], service.config.limits.explain_words
    )
    without = [f"{clean[:start]}{clean[end:]}" for start, end in spans]
    encoded = await service.encode(model, without, truncate or model.engine.config.truncate)
    rows = [one.ids for one in encoded if isinstance(one, Encoded)]
    service.admit(sum(map(len, rows)))
    logits, _ = await model.coalescer.run(rows)
    probabilities = model.engine.calibrated(logits, calibration).astype(np.float64)
    place = LABELS.index(answer.prediction.label)
    whole = np.array([*answer.prediction.probabilities.values()])
    words = [
        {
            "text": clean[start:end],
            "start": start,
            "end": end,
            "attribution": float(whole[place] - row[place]),
            "by_label": dict(zip(LABELS, (whole - row).tolist(), strict=True)),
        }
        for (start, end), row in zip(spans, probabilities, strict=True)
    ]
    return answer, timing, clean, words


async def keep_up(service: Service, model: str, calibrations: dict[str, str | None]) -> None:
    """Follow what a gateway follows. What cannot be used is logged, and the next call tries again.

    Args:
        model: alias or version.
        calibrations: by tag, as in `serve.calibrations`.
    """
    if (model, calibrations) == (service.wanted, service.names):
        return
    service.config = service.config.replaced(calibrations=calibrations)
    try:
        # A reference that is given is loaded at once; None waits after a refusal.
        await service.follow(None if model == service.wanted else model)
    except InputError as error:
        log.error("model %r is refused: %s", model, error)


def _groups(spans: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Neighbouring words joined, so that there are at most so many."""
    size = -(-len(spans) // most) if spans else 1
    return [
        (spans[i][0], spans[min(i + size, len(spans)) - 1][1]) for i in range(0, len(spans), size)
    ]
