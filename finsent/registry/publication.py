"""A publication: the version of a model, its alias, and the gate that it passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

from finsent.errors import InputError
from finsent.registry.gate import Gate
from finsent.registry.model_version import ModelVersion
from finsent.tracking.tracker import Tracker


class PublicationKeys(TypedDict):
    """The keys of a publication in a job's result; null where it was refused."""

    model_version: str | None
    alias: str | None
    version_dir: str | None
    gate: Gate | None


@dataclass(frozen=True)
class Publication:
    """A published model."""

    version: ModelVersion
    alias: str | None
    gate: Gate | None  # None: no comparison was needed
    metrics: dict[str, Any]  # of the test split; empty: the model was not measured

    def as_result(self) -> PublicationKeys:
        """Return the keys of a job's result."""
        return {
            "model_version": self.version.version,
            "alias": self.alias,
            "version_dir": str(self.version.path),
            "gate": self.gate,
        }

    def track(self, tracker: Tracker) -> None:
        """Record the version in a tracked run."""
        gate = self.gate.as_json() if self.gate else None
        tracker.model(self.version.path, self.version.version, self.alias, gate)


@dataclass(frozen=True)
class Refusal:
    """A refused publication. The result of the steps before it is still reported."""

    error: InputError

    def as_result(self) -> PublicationKeys:
        """Return the keys of a publication, all null."""
        return {"model_version": None, "alias": None, "version_dir": None, "gate": None}

    def track(self, tracker: Tracker) -> None:
        """Record nothing: there is no version."""


def attempt(publish: Callable[[], Publication]) -> Publication | Refusal:
    """Publish, or return the refusal, so that the job still reports the steps before it."""
    try:
        return publish()
    except InputError as error:
        return Refusal(error)
