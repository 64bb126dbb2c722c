"""A challenger beside the model that answers: the same texts, and how often they agree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.modeling.calibration import Calibration
from serve_app.service import Answer, Service


@dataclass
class Agreement:
    """How a shadow's answers compare with those that clients got."""

    texts: int = 0
    same_labels: int = 0
    difference: float = 0.0  # sum of the largest differences of a probability
    seconds: float = 0.0  # of the shadow
    failed: int = 0  # texts that the shadow had no answer for
    uncalibrated: int = 0  # texts of a source for which the shadow has no calibration
    # By the label that clients got, then by the shadow's.
    confusion: dict[str, dict[str, int]] = field(
        default_factory=lambda: {a: dict.fromkeys(LABELS, 0) for a in LABELS}
    )

    def add(self, item: dict[str, Any], answer: Answer) -> None:
        """Count a text."""
        shadow = answer.prediction
        self.texts += 1
        self.same_labels += shadow.label == item["label"]
        self.difference += max(
            abs(shadow.probabilities[label] - item["probabilities"][label]) for label in LABELS
        )
        self.confusion[item["label"]][shadow.label] += 1

    def body(self) -> dict[str, Any]:
        """It as JSON."""
        return {
            "texts": self.texts,
            "failed": self.failed,
            "uncalibrated": self.uncalibrated,
            "same_labels": self.same_labels / self.texts if self.texts else None,
            "mean_difference": self.difference / self.texts if self.texts else None,
            "texts_per_second": self.texts / self.seconds if self.seconds else None,
            "confusion": self.confusion,
        }


class Shadow:
    """Compares; counts are kept by pair of versions."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.found: dict[tuple[str, str], Agreement] = {}

    async def compare(self, reference: str, items: Sequence[dict[str, Any]]) -> None:
        """Ask the shadow what clients asked.

        Args:
            reference: alias or version of the shadow.
            items: texts, with the label, probabilities, model_version and calibration that clients
                got. The shadow uses its calibration of the same name, if it has one.

        Raises:
            InputError: the shadow can't be loaded.
            Problem: too much waits.
        """
        await self._service.follow(reference)
        names = dict.fromkeys(item.get("calibration") for item in items)
        for name in names:
            calibration = await asyncio.to_thread(self._calibration, name)
            await self._compare(
                [one for one in items if one.get("calibration") == name], calibration
            )

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
        self, items: Sequence[dict[str, Any]], calibration: Calibration | None
    ) -> None:
        version = self._service.model.version
        size = self._service.config.limits.texts
        for start in range(0, len(items), size):
            some = items[start : start + size]
            started = time.perf_counter()
            texts = [item["text"] for item in some]
            answers, _ = await self._service.classify(texts, calibration=calibration)
            seconds = time.perf_counter() - started
            for item, answer in zip(some, answers, strict=True):
                pair = self.found.setdefault((item["model_version"], version), Agreement())
                pair.seconds += seconds / len(some)
                pair.uncalibrated += calibration is None
                if isinstance(answer, Answer):
                    pair.add(item, answer)
                else:
                    pair.failed += 1

    def report(self) -> list[dict[str, Any]]:
        """All pairs of versions, the latest last."""
        return [
            {"model_version": model, "shadow_version": shadow, **agreement.body()}
            for (model, shadow), agreement in self.found.items()
        ]
