"""All settings of a project in one closed type, so that one YAML file serves every job.

Sections that belong to a component are declared beside it; only ownerless ones stand here.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, field_validator

from finsent.adoption.config import AdoptConfig
from finsent.config import Section, local_dir, setting
from finsent.data.config import DataConfig
from finsent.evaluation.config import CalibrateConfig, EvaluateConfig
from finsent.export.config import ExportConfig
from finsent.inference.config import EngineConfig
from finsent.modeling.config import ModelConfig
from finsent.references import LATEST
from finsent.registry.config import PublishConfig, RegistryConfig
from finsent.scoring.config import ClassifyConfig, PredictConfig
from finsent.tracking.config import TrackingConfig
from finsent.training.config import TrainConfig
from serve_app.config import ServeConfig
from tune.config import SweepConfig


class StorageConfig(Section):
    """Where artifacts go."""

    root: Annotated[str, AfterValidator(local_dir)] = setting(
        "artifacts",
        "directory of datasets, runs and the registry; on several machines a mount they share. "
        "Inside a Ray job a relative path counts from ~/finsent, as the job's own working "
        "directory is deleted with it",
        min_length=1,
    )


class RunConfig(Section):
    """One execution of a job."""

    name: str | None = setting(
        None,
        "name of the run's directory; a training run that was interrupted goes on under the same "
        "name. null: job, time and a random suffix",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
    )

    @field_validator("name")
    @classmethod
    def _not_latest(cls, name: str | None) -> str | None:
        if name == LATEST:
            raise ValueError(f"{name!r} means the last finished training run; choose another name")
        return name


class RayConfig(Section):
    """The Ray that a job starts when it is not inside one already."""

    address: str | None = setting(
        None,
        "running cluster to join, e.g. auto; null: the one this job was submitted to, or else a "
        "local Ray of its own",
    )
    num_cpus: int | None = setting(
        None, "logical CPUs of a local Ray; null: the cores, and at least 4", unit="CPUs", ge=1
    )
    worker_logs: bool = setting(False, "show the log lines of Ray's worker processes on stderr")


class Settings(Section):
    """Everything that a user can set."""

    storage: StorageConfig = setting(StorageConfig, "where artifacts go")
    run: RunConfig = setting(RunConfig, "this execution")
    ray: RayConfig = setting(RayConfig, "the local Ray")
    data: DataConfig = setting(DataConfig, "sources and their treatment")
    model: ModelConfig = setting(ModelConfig, "the pre-trained encoder")
    train: TrainConfig = setting(TrainConfig, "the recipe")
    sweep: SweepConfig = setting(SweepConfig, "hyperparameter search")
    evaluate: EvaluateConfig = setting(EvaluateConfig, "what is measured")
    calibrate: CalibrateConfig = setting(CalibrateConfig, "a published model for a domain")
    adopt: AdoptConfig = setting(AdoptConfig, "a classifier from elsewhere")
    registry: RegistryConfig = setting(RegistryConfig, "published models")
    publish: PublishConfig = setting(PublishConfig, "what is published")
    tracking: TrackingConfig = setting(TrackingConfig, "experiment tracking")
    engine: EngineConfig = setting(EngineConfig, "inference")
    export: ExportConfig = setting(ExportConfig, "faster forms of a model")
    predict: PredictConfig = setting(PredictConfig, "batch scoring")
    serve: ServeConfig = setting(ServeConfig, "the service")
    classify: ClassifyConfig = setting(ClassifyConfig, "one-off classification")

    @property
    def root(self) -> Path:
        """`storage.root` as an absolute path."""
        return _lasting(self.storage.root)

    @property
    def datasets_dir(self) -> Path:
        """Where the versions of `data.name` lie."""
        return self.root / "datasets" / self.data.name

    @property
    def sources_dir(self) -> Path:
        """Where what hubs deliver lies."""
        return self.root / "sources"

    @property
    def runs_dir(self) -> Path:
        """Where the runs' directories lie."""
        return self.root / "runs"

    @property
    def registry_dir(self) -> Path:
        """Where published model versions lie."""
        root = self.registry.root
        return _lasting(root) if root else self.root / "registry"


def _lasting(name: str) -> Path:
    """An absolute path that outlives a Ray job's working directory."""
    path = Path(name).expanduser()
    if not path.is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        path = Path.home() / "finsent" / path
    return path.absolute()


def new_run_name(job: str) -> str:
    """A name that sorts by time and does not collide."""
    return f"{job}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
