"""Where models and rows are, and how models are measured: what each judging job needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from finsent.data.config import DataConfig
from finsent.evaluation.config import EvaluateConfig
from finsent.inference.config import EngineConfig
from finsent.workspace import Workspace, WorkspaceSettings


class EvaluationSettings(WorkspaceSettings, Protocol):
    """Settings with the sections of an evaluation."""

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
        workspace = Workspace.of(settings)
        return cls(workspace, settings.evaluate, settings.engine, settings.data)

    def with_evaluate(self, config: EvaluateConfig) -> EvaluationSetup:
        """Return the setup with another section `evaluate`."""
        return replace(self, evaluate=config)
