"""The shadow: a challenger that gets the same texts, and counts of how often it agrees."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.modeling.calibration import Calibration
from finsent.monitoring.paired import PairedVerdict
from finsent.rollout.shadows import Confusion, ShadowCounts, ShadowRecord, Shadows
from serve_app.deployments.branches import Branch
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.answer import Answer, AnswerListener
from serve_app.service.coalescer import Timing
from serve_app.service.service import Service


@dataclass(frozen=True, slots=True)
class ShadowItem:
    """A text, and the answer that the client got."""

    text: str
    label: str
    probabilities: dict[str, float]
    model_version: str
    calibration: str | None  # name; None: the model's own


def shadow_listener(service: Service, branch: Branch[ShadowItem]) -> AnswerListener:
    """Return a listener that offers a share of the texts to the shadow while one is configured."""
    rng = random.Random()

    def listener(
        _: Sender, texts: Sequence[Any], answers: Sequence[Answer | Problem], timing: Timing
    ) -> None:
        share = service.config.shadow_share
        if service.config.shadow is None or not timing.rows:
            return
        branch.offer(
            [
                ShadowItem(
                    text,
                    answer.prediction.label,
                    answer.prediction.probabilities,
                    answer.model_version,
                    answer.calibration,
                )
                for text, answer in zip(texts, answers, strict=True)
                if isinstance(answer, Answer) and rng.random() < share
            ]
        )

    return listener


class AgreementReport(TypedDict):
    """Comparison of two versions, as JSON."""

    model_version: str
    shadow_version: str
    texts: int
    failed: int
    uncalibrated: int
    same_labels: float | None  # share of the texts
    mean_difference: float | None
    texts_per_second: float | None
    confusion: Confusion
    verdict: PairedVerdict  # on the shadow
    lowest_difference: float  # of the accuracy, shadow minus model, with 95 % at every look


def report(record: ShadowRecord, margin: float) -> AgreementReport:
    """Return shares, means and the verdict of a pair of versions.

    Args:
        margin: accuracy difference that counts as equal, as a fraction.
    """
    texts = record.texts
    return {
        "model_version": record.model_version,
        "shadow_version": record.shadow_version,
        "texts": texts,
        "failed": record.failed,
        "uncalibrated": record.uncalibrated,
        "same_labels": record.same_labels / texts if texts else None,
        "mean_difference": record.difference / texts if texts else None,
        "texts_per_second": texts / record.seconds if record.seconds else None,
        "confusion": record.confusion,
        "verdict": record.verdict(margin),
        "lowest_difference": record.worst_case.lower,
    }


def add_text(counts: ShadowCounts, item: ShadowItem, answer: Answer) -> None:
    """Count a text that the shadow answered."""
    shadow = answer.prediction
    counts.texts += 1
    counts.difference += max(
        abs(shadow.probabilities[label] - item.probabilities[label]) for label in LABELS
    )
    counts.confusion[item.label][shadow.label] += 1


class Shadow:
    """Compares a challenger with the model that answers, by pair of versions."""

    def __init__(self, service: Service, shadows: Shadows) -> None:
        """Load nothing yet.

        Args:
            shadows: stores the counts.
        """
        self._service, self._shadows = service, shadows

    async def compare(self, reference: str, items: Sequence[ShadowItem]) -> None:
        """Classify the texts that clients sent, and count how often the labels agree.

        Args:
            reference: alias or version of the shadow.
            items: each is classified with the shadow's calibration of the same name, if any.

        Raises:
            InputError: the shadow cannot be loaded, or its counts cannot be stored.
            Problem: too much work waits.
        """
        await self._service.models.follow(reference)
        version = self._service.model.version
        counts: dict[str, ShadowCounts] = {}  # by the version that answered
        for name in dict.fromkeys(item.calibration for item in items):
            calibration = await asyncio.to_thread(self._calibration, name)
            same_name = [item for item in items if item.calibration == name]
            await self._compare(same_name, calibration, counts)
        for model_version, added in counts.items():
            await asyncio.to_thread(self._shadows.add, model_version, version, added)

    def _calibration(self, name: str | None) -> Calibration | None:
        """Return the shadow's calibration of a name; None: it has none."""
        model = self._service.model
        if name is None:
            return model.engine.calibration
        try:
            return model.read_domains(self._service.registry, [name])[name]
        except InputError:
            return None

    async def _compare(
        self,
        items: Sequence[ShadowItem],
        calibration: Calibration | None,
        counts: dict[str, ShadowCounts],
    ) -> None:
        size = self._service.config.limits.texts
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            started = time.perf_counter()
            texts = [item.text for item in batch]
            answers, _ = await self._service.classify(texts, calibration=calibration)
            seconds = time.perf_counter() - started
            for item, answer in zip(batch, answers, strict=True):
                pair = counts.setdefault(item.model_version, ShadowCounts())
                pair.seconds += seconds / len(batch)
                pair.uncalibrated += calibration is None
                if isinstance(answer, Answer):
                    add_text(pair, item, answer)
                else:
                    pair.failed += 1
