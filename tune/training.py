"""The training of a trial, in a process that can be killed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.settings import Settings
from tune.objectives import TrialModel, objective_values

if TYPE_CHECKING:
    import ray.data


class Training:
    """A Ray actor that trains a trial's model.

    Args:
        environment: variables to set, where they are not set.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        for name, value in environment.items():
            os.environ.setdefault(name, value)

    def run(
        self,
        settings: Settings,
        params: Mapping[str, Any],
        version_dir: Path,
        datasets: Mapping[str, ray.data.Dataset],
        folder: Path,
        modes: Mapping[str, str],
    ) -> tuple[dict[str, float], Path]:
        """Train, and measure the objectives that training does not report.

        Args:
            settings: the trial's.
            params: the settings that the trial varies, by config key.
            version_dir: the dataset version, for a trial that does not make its own.
            datasets: tokenized splits by name; empty for a trial that makes its own.
            folder: the trial's directory.
            modes: direction by objective.

        Returns:
            Values by objective, of the epoch that training keeps, and the model's directory.
        """
        # PyTorch and transformers take seconds to import; the driver imports this module, too.
        from finsent.modeling.backbone import resolve_backbone
        from finsent.training.frontends.check import check_trainer
        from finsent.training.ray_trainer import fit
        from finsent.training.task import make_task

        check_trainer(settings.train)
        version = trial_version(settings, params, version_dir, folder)
        backbone = resolve_backbone(settings.model, settings.workspace.backbones_dir)
        task = make_task(settings.train, settings.model, backbone, version)
        trained = fit(task, version, folder, datasets=datasets or None)
        model = TrialModel(settings, trained.model_dir, version)
        return objective_values(trained.best.model_dump(), model, modes), trained.model_dir


def trial_version(
    settings: Settings, params: Mapping[str, Any], version_dir: Path, folder: Path
) -> DatasetVersion:
    """Return a trial's dataset version: its own where it varies settings of data.

    Raises:
        InputError: the shared version does not exist any more.
    """
    if any(key.startswith("data.") for key in params):
        # Ray Data takes a second to import; most trials vary no settings of data.
        from finsent.data.ingest.ingest import find_existing, ingest
        from finsent.data.sources.files import find_sources

        files = find_sources(settings.data, settings.workspace.sources_dir)
        versions_dir = settings.workspace.versions(settings.data.name)
        version = find_existing(settings.data, versions_dir, files)
        return version or ingest(settings.data, versions_dir, files, folder)
    shared = DatasetVersion.at(version_dir)
    if shared is None:
        raise InputError(
            f"{str(version_dir)!r}: the dataset version is gone. Restore it, or ingest it again."
        )
    return shared
