"""Results of the job `registry`: JSON on stdout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypedDict

from finsent.evaluation.results import CalibrationSummary
from finsent.registry.gate import Gate, GateBrief
from finsent.registry.model_version import ModelVersion
from finsent.registry.version_manifest import VersionManifest


class VersionKeys(TypedDict):
    """The keys of `VersionResult`."""

    model_version: str
    version_dir: str
    created: str
    macro_f1: float | None
    accuracy: float | None
    dataset_version: str | None
    backbone: str | None


@dataclass(frozen=True)
class VersionResult:
    """What each action returns of a version."""

    model_version: str
    version_dir: str
    created: str
    macro_f1: Annotated[float | None, "null: adopted and not measured"]
    accuracy: float | None
    dataset_version: str | None
    backbone: str | None


@dataclass(frozen=True)
class ListedVersion(VersionResult):
    """A version in the result of `list`."""

    aliases: list[str]
    gates: dict[str, GateBrief | None]  # by alias
    calibrations: list[str]  # names


@dataclass(frozen=True)
class DamagedVersion:
    """A version in the result of `list` whose manifest cannot be read."""

    model_version: str
    damaged: bool = True


@dataclass(frozen=True)
class Listing:
    """Result of `list`."""

    root: str
    aliases: Annotated[dict[str, str], "version by alias"]
    models: Annotated[
        list[ListedVersion | DamagedVersion],
        "as of show, with the names of their aliases and calibrations",
    ]


@dataclass(frozen=True)
class ShowResult(VersionResult):
    """Result of `show`."""

    manifest: VersionManifest
    gates: Annotated[dict[str, Gate | None], "by alias, of the step that pointed it at the version"]
    calibrations: list[CalibrationSummary]


@dataclass(frozen=True)
class RollbackResult(VersionResult):
    """Result of `rollback`."""

    alias: str


@dataclass(frozen=True)
class PromoteResult(RollbackResult):
    """Result of `promote`."""

    gate: Annotated[Gate | None, "null: no comparison was needed"]


def version_keys(version: ModelVersion) -> VersionKeys:
    """Return what each action returns of a version."""
    manifest = version.manifest
    dataset = manifest.dataset
    metrics = manifest.metrics
    return {
        "model_version": version.version,
        "version_dir": str(version.path),
        "created": manifest.created,
        "macro_f1": metrics.macro_f1,
        "accuracy": metrics.accuracy,
        "dataset_version": dataset.version if dataset else None,
        "backbone": manifest.backbone,
    }
