"""The shadow: a challenger that gets the same texts, and counts of how often it agrees."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.modeling.calibration import Calibration
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
    confusion: dict[str, dict[str, int]]


@dataclass
class Agreement:
    """Counts of a shadow's answers compared with those that clients got."""

    texts: int = 0
    same_labels: int = 0
    difference: float = 0.0  # sum of each text's largest difference of a probability
    seconds: float = 0.0  # of the shadow
    failed: int = 0  # texts that the shadow had no answer for
    uncalibrated: int = 0  # texts of a source for which the shadow has no calibration
    # By the label that the client got, then by the shadow's label.
    confusion: dict[str, dict[str, int]] = field(
        default_factory=lambda: {label: dict.fromkeys(LABELS, 0) for label in LABELS}
    )

    def add(self, item: ShadowItem, answer: Answer) -> None:
        """Count a text."""
        shadow = answer.prediction
        self.texts += 1
        self.same_labels += shadow.label == item.label
        self.difference += max(
            abs(shadow.probabilities[label] - item.probabilities[label]) for label in LABELS
        )
        self.confusion[item.label][shadow.label] += 1

    def report(self, model_version: str, shadow_version: str) -> AgreementReport:
        """Return shares and means of the counts."""
        return {
            "model_version": model_version,
            "shadow_version": shadow_version,
            "texts": self.texts,
            "failed": self.failed,
            "uncalibrated": self.uncalibrated,
            "same_labels": self.same_labels / self.texts if self.texts else None,
            "mean_difference": self.difference / self.texts if self.texts else None,
            "texts_per_second": self.texts / self.seconds if self.seconds else None,
            "confusion": self.confusion,
        }


class Shadow:
    """Compares a challenger with the model that answers, by pair of versions."""

    def __init__(self, service: Service) -> None:
        self._service = service
        # By the version that answered and the shadow's version.
        self._agreements: dict[tuple[str, str], Agreement] = {}

    async def compare(self, reference: str, items: Sequence[ShadowItem]) -> None:
        """Classify the texts that clients sent, and count how often the labels agree.

        Args:
            reference: alias or version of the shadow.
            items: each is classified with the shadow's calibration of the same name, if any.

        Raises:
            InputError: the shadow cannot be loaded.
            Problem: too much work waits.
        """
        await self._service.models.follow(reference)
        for name in dict.fromkeys(item.calibration for item in items):
            calibration = await asyncio.to_thread(self._calibration, name)
            await self._compare([item for item in items if item.calibration == name], calibration)

    def _calibration(self, name: str | None) -> Calibration | None:
        """Return the shadow's calibration of a name; None: it has none."""
        model = self._service.model
        if name is None:
            return model.engine.calibration
        try:
            return model.read_domains(self._service.registry, [name])[name]
        except InputError:
            return None

    async def _compare(self, items: Sequence[ShadowItem], calibration: Calibration | None) -> None:
        version = self._service.model.version
        size = self._service.config.limits.texts
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            started = time.perf_counter()
            texts = [item.text for item in batch]
            answers, _ = await self._service.classify(texts, calibration=calibration)
            seconds = time.perf_counter() - started
            for item, answer in zip(batch, answers, strict=True):
                agreement = self._agreements.setdefault((item.model_version, version), Agreement())
                agreement.seconds += seconds / len(batch)
                agreement.uncalibrated += calibration is None
                if isinstance(answer, Answer):
                    agreement.add(item, answer)
                else:
                    agreement.failed += 1

    def report(self) -> list[AgreementReport]:
        """Return all pairs of versions, the latest last."""
        return [
            agreement.report(model, shadow)
            for (model, shadow), agreement in self._agreements.items()
        ]
