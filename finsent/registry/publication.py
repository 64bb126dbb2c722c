"""A publication: the version of a model, its alias, and the gate that it passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finsent.errors import InputError
from finsent.registry.gate import Gate
from finsent.registry.model_version import ModelVersion
from finsent.tracking.tracker import Tracker


@dataclass(frozen=True)
class Publication:
    """A published model."""

    version: ModelVersion
    alias: str | None
    gate: Gate | None  # None: no comparison was needed
    metrics: dict[str, Any]  # of the test split; empty: the model was not measured

    def as_result(self) -> dict[str, Any]:
        """Return the keys of a job's result."""
        return {
            "model_version": self.version.version,
            "alias": self.alias,
            "version_dir": str(self.version.path),
            "gate": self.gate.as_json() if self.gate else None,
        }

    def track(self, tracker: Tracker) -> None:
        """Record the version in a tracked run."""
        result = self.as_result()
        tracker.model(self.version.path, self.version.version, self.alias, result["gate"])


@dataclass(frozen=True)
class Refusal:
    """A refused publication. The result of the steps before it is still reported."""

    error: InputError

    def as_result(self) -> dict[str, Any]:
        """Return the keys of a publication, all null."""
        return dict.fromkeys(("model_version", "alias", "version_dir", "gate"))

    def track(self, tracker: Tracker) -> None:
        """Record nothing: there is no version."""


def attempt(publish: Callable[[], Publication]) -> Publication | Refusal:
    """Publish, or return the refusal, so that the job still reports the steps before it."""
    try:
        return publish()
    except InputError as error:
        return Refusal(error)
