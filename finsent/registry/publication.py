"""A publication: the version of a model, its alias, and the gate that it passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finsent.errors import InputError
from finsent.registry.gate import Gate
from finsent.registry.model_version import ModelVersion
from finsent.tracking.tracker import Tracker


@dataclass(frozen=True)
class PublicationSummary:
    """A publication, as results of jobs state it. All fields are None if it was refused."""

    model_version: str | None = None
    alias: str | None = None
    version_dir: str | None = None
    gate: Gate | None = None  # None: no comparison was needed


@dataclass(frozen=True)
class Publication:
    """A published model."""

    version: ModelVersion
    alias: str | None
    gate: Gate | None  # None: no comparison was needed

    @property
    def summary(self) -> PublicationSummary:
        """The publication for a job's result."""
        version = self.version
        return PublicationSummary(version.version, self.alias, str(version.path), self.gate)

    def track(self, tracker: Tracker) -> None:
        """Record the version in a tracked run."""
        gate = self.gate.as_json() if self.gate else None
        tracker.model(self.version.path, self.version.version, self.alias, gate)


@dataclass(frozen=True)
class Refusal:
    """A refused publication. The result of the steps before it is still reported."""

    error: InputError

    @property
    def summary(self) -> PublicationSummary:
        """The publication for a job's result: none."""
        return PublicationSummary()

    def track(self, tracker: Tracker) -> None:
        """Record nothing: there is no version."""


def attempt(publish: Callable[[], Publication]) -> Publication | Refusal:
    """Publish, or return the refusal, so that the job still reports the steps before it."""
    try:
        return publish()
    except InputError as error:
        return Refusal(error)
