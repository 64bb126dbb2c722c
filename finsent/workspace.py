"""Where a project's datasets, runs, sources and published models are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finsent.data.config import DataConfig
from finsent.data.versions.dataset import DatasetVersion
from finsent.modeling.trained_on import TrainedOn
from finsent.registry.references import find_any_model
from finsent.registry.registry import Registry


class WorkspaceSettings(Protocol):
    """Settings that name a workspace."""

    @property
    def root(self) -> Path: ...  # noqa: D102

    @property
    def registry_dir(self) -> Path: ...  # noqa: D102

    @property
    def data(self) -> DataConfig: ...  # noqa: D102


@dataclass(frozen=True)
class Workspace:
    """Directories of a project."""

    root: Path  # `storage.root`, absolute
    registry_dir: Path
    dataset: str  # `data.name`, the dataset of models that name none

    @classmethod
    def of(cls, settings: WorkspaceSettings) -> Workspace:
        """Return the workspace that settings name."""
        return cls(settings.root, settings.registry_dir, settings.data.name)

    @property
    def runs_dir(self) -> Path:
        """Directory of the runs' directories."""
        return self.root / "runs"

    @property
    def sources_dir(self) -> Path:
        """Directory of files that hubs deliver."""
        return self.root / "sources"

    @property
    def registry(self) -> Registry:
        """The published models."""
        return Registry(self.registry_dir)

    def dataset_dir(self, name: str) -> Path:
        """Return the directory of a dataset's versions."""
        return self.root / "datasets" / name

    def find_model(self, reference: str, field: str) -> Path:
        """Return the directory of a run's model, or of a published version (verified).

        Args:
            field: the setting that holds the reference, for messages.

        Raises:
            InputError: there is no such model, it is damaged, or the reference names two.
        """
        return find_any_model(reference, self.registry, self.runs_dir, field)

    def find_dataset(self, trained_on: TrainedOn | None) -> DatasetVersion | None:
        """Return the dataset version that a model was trained on.

        Args:
            trained_on: None: the model was trained elsewhere.

        Returns:
            None: the model was trained elsewhere, or the version is no longer in the workspace.

        Raises:
            InputError: the version is damaged.
        """
        if trained_on is None:
            return None
        return DatasetVersion.at(self.dataset_dir(trained_on.name) / trained_on.version)
