"""What the job `ingest` reports: a dataset version, or the comparison of two."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated

from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.diff_records import (
    CountChange,
    ExamplePair,
    InputChanges,
    LabelChange,
    RowChanges,
    VersionIdentity,
)
from finsent.data.versions.warnings import version_warnings
from finsent.records import JsonObject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestResult:
    """A dataset version."""

    dataset: str
    dataset_version: str
    dataset_dir: str
    counts: Annotated[dict[str, int], "rows"]
    splits: Annotated[dict[str, int], "rows"]
    excluded_reasons: dict[str, int]
    near_groups: int | None
    noise_ceiling: Annotated[
        float | None, "best accuracy of any deterministic classifier on the kept rows"
    ]
    suspect_labels: int | None
    report: str
    reused: Annotated[bool, "whether the version existed before"]

    @classmethod
    def of(cls, version: DatasetVersion, is_reused: bool) -> IngestResult:
        """Log what a dataset version holds, and return the result.

        Args:
            is_reused: whether the version existed before.
        """
        manifest = version.manifest
        counts, noise = manifest.counts, manifest.label_noise
        splits = {name: split.rows for name, split in manifest.splits.items()}
        log.info(
            "dataset %s: %d rows in, %d kept (%s), %d rejected, %d duplicates, %d in conflict, "
            "%d excluded",
            version.version,
            counts.rows_in,
            counts.kept,
            ", ".join(f"{name} {rows}" for name, rows in splits.items()),
            counts.rejected,
            counts.duplicates,
            counts.conflicts,
            counts.excluded,
        )
        for warning in version_warnings(manifest):
            log.warning("note: %s", warning)
        report = version.path / "report.html"
        log.info("report: %s", report)
        return cls(
            dataset=manifest.name,
            dataset_version=version.version,
            dataset_dir=str(version.path),
            counts=counts.model_dump(),
            splits=splits,
            excluded_reasons=manifest.details.excluded_reasons,
            near_groups=manifest.details.near_groups,
            noise_ceiling=manifest.noise_ceiling.kept,
            suspect_labels=None if noise is None else noise.issues,
            report=str(report),
            reused=is_reused,
        )


@dataclass(frozen=True)
class DiffResult:
    """What changed from version A to version B."""

    a: VersionIdentity
    b: VersionIdentity
    identical: bool
    warnings: list[str]
    rows: Annotated[RowChanges, "by change"]
    labels: Annotated[dict[str, dict[str, LabelChange]], "rows and shares by split"]
    counts: dict[str, CountChange]
    inputs: InputChanges
    exclude: InputChanges
    config: dict[str, JsonObject]
    examples: dict[str, list[ExamplePair]]
