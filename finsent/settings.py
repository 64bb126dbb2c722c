"""The settings of the library: sections of its components, and the sections of no component.

`tune.settings` and `serve_app.settings` add the sections of their packages. `ray_jobs._settings`
composes all of them, so that one YAML file serves every job.
"""

from __future__ import annotations

from pydantic import field_validator

from finsent.adoption.config import AdoptConfig
from finsent.config import Section, setting
from finsent.data.config import DataConfig
from finsent.evaluation.config import CalibrateConfig, EvaluateConfig
from finsent.export.config import ExportConfig
from finsent.inference.config import EngineConfig
from finsent.modeling.config import ModelConfig
from finsent.references import LATEST
from finsent.registry.config import PublishConfig, RegistryConfig
from finsent.rollout.config import PromoteConfig
from finsent.scoring.config import ClassifyConfig, PredictConfig
from finsent.storage import StorageConfig
from finsent.tracking.config import TrackingConfig
from finsent.training.config import TrainConfig
from finsent.workspace import Workspace


class RunConfig(Section):
    """One execution of a job."""

    name: str | None = setting(
        None,
        "name of the run's directory; an interrupted run resumes under the same name. null: job, "
        "time and a random suffix",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        form="letters, digits, dots, - and _, and begin with a letter or a digit",
    )

    @field_validator("name")
    @classmethod
    def _not_latest(cls, name: str | None) -> str | None:
        if name == LATEST:
            raise ValueError(f"{name!r} means the last finished training run. Choose another name.")
        return name


class RayConfig(Section):
    """The Ray that a job uses or starts."""

    address: str | None = setting(
        None,
        "running cluster to join, e.g. auto; null: the cluster that this job was submitted to, "
        "else a new local Ray",
    )
    num_cpus: int | None = setting(
        None, "logical CPUs of a local Ray; null: the cores, and at least 4", unit="CPUs", ge=1
    )
    worker_logs: bool = setting(False, "show the log lines of Ray's worker processes on stderr")


class Settings(Section):
    """The sections that finsent itself uses."""

    storage: StorageConfig = setting(StorageConfig, "where artifacts go")
    run: RunConfig = setting(RunConfig, "this execution")
    ray: RayConfig = setting(RayConfig, "the local Ray")
    data: DataConfig = setting(DataConfig, "sources and their treatment")
    model: ModelConfig = setting(ModelConfig, "the pre-trained encoder")
    train: TrainConfig = setting(TrainConfig, "the training")
    evaluate: EvaluateConfig = setting(EvaluateConfig, "what is measured")
    calibrate: CalibrateConfig = setting(CalibrateConfig, "a published model for a domain")
    adopt: AdoptConfig = setting(AdoptConfig, "a classifier from elsewhere")
    registry: RegistryConfig = setting(RegistryConfig, "published models")
    publish: PublishConfig = setting(PublishConfig, "what is published")
    promote: PromoteConfig = setting(PromoteConfig, "how a version gets an alias")
    tracking: TrackingConfig = setting(TrackingConfig, "experiment tracking")
    engine: EngineConfig = setting(EngineConfig, "inference")
    export: ExportConfig = setting(ExportConfig, "faster forms of a model")
    predict: PredictConfig = setting(PredictConfig, "batch scoring")
    classify: ClassifyConfig = setting(ClassifyConfig, "one-off classification")

    @property
    def workspace(self) -> Workspace:
        """The directories of datasets, sources, runs, models and backbones."""
        return Workspace.at(self.storage.root, self.registry.root, self.storage)
