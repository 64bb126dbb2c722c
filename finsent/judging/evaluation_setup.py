"""The workspace and the settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from finsent.data.config import DataConfig
from finsent.evaluation.config import EvaluateConfig
from finsent.inference.config import EngineConfig
from finsent.registry.registry import Registry
from finsent.workspace import Workspace


class EvaluationSettings(Protocol):
    """Settings with the sections of an evaluation."""

    @property
    def workspace(self) -> Workspace: ...  # noqa: D102

    @property
    def data(self) -> DataConfig: ...  # noqa: D102

    @property
    def evaluate(self) -> EvaluateConfig: ...  # noqa: D102

    @property
    def engine(self) -> EngineConfig: ...  # noqa: D102


@dataclass(frozen=True)
class EvaluationSetup:
    """The workspace and the sections of an evaluation."""

    workspace: Workspace
    evaluate: EvaluateConfig
    engine: EngineConfig
    data: DataConfig  # how files are read, and how near copies are found

    @classmethod
    def of(cls, settings: EvaluationSettings) -> EvaluationSetup:
        """Return the setup that settings describe."""
        return cls(settings.workspace, settings.evaluate, settings.engine, settings.data)

    @property
    def registry(self) -> Registry:
        """The published models."""
        return Registry(self.workspace.registry)

    def with_evaluate(self, config: EvaluateConfig) -> EvaluationSetup:
        """Return the setup with another section `evaluate`."""
        return replace(self, evaluate=config)
