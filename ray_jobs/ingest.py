"""Create a dataset version from labeled files, or compare two versions."""

from __future__ import annotations

import logging
from pathlib import Path

from finsent.data.ingest.ingest import find_existing, ingest
from finsent.data.sources.files import SourceFile, find_sources
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.diff import diff
from finsent.data.versions.diff_tables import diff_tables
from finsent.data.versions.warnings import version_warnings
from finsent.errors import ConfigError
from finsent.files import make_dir
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main, table_console
from ray_jobs._ray import ray_session

log = logging.getLogger(__name__)


def step(settings: Settings, files: list[SourceFile], run_dir: Path | None) -> DatasetVersion:
    """Ingest on a running Ray. Rows that stop the ingest are listed in the run's directory."""
    megabytes = sum(file.bytes for file in files) / 1e6
    log.info("ingest: %d file(s), %.1f MB", len(files), megabytes)
    return ingest(settings.data, settings.datasets_dir, files, run_dir)


def describe(version: DatasetVersion) -> Result:
    """Log a dataset version, and return its keys of the job's result."""
    manifest = version.manifest
    counts, noise = manifest.counts, manifest.label_noise
    log.info(
        "dataset %s: %d rows in, %d kept (%s), %d rejected, %d duplicates, %d in conflict, "
        "%d excluded",
        version.version,
        counts.rows_in,
        counts.kept,
        ", ".join(f"{name} {split.rows}" for name, split in manifest.splits.items()),
        counts.rejected,
        counts.duplicates,
        counts.conflicts,
        counts.excluded,
    )
    for warning in version_warnings(manifest):
        log.warning("note: %s", warning)
    log.info("report: %s", version.path / "report.html")
    return {
        "dataset": manifest.name,
        "dataset_version": version.version,
        "dataset_dir": str(version.path),
        "counts": counts.model_dump(),
        "splits": {name: split.rows for name, split in manifest.splits.items()},
        "excluded_reasons": manifest.details.excluded_reasons,
        "near_groups": manifest.details.near_groups,
        "noise_ceiling": manifest.noise_ceiling.kept,
        "suspect_labels": noise and noise.issues,
        "report": str(version.path / "report.html"),
    }


def compare(call: Call) -> Result:
    """Print what differs between two versions, and return the difference."""
    if len(call.arguments) != 3 or call.arguments[0] != "diff":
        raise ConfigError(
            f"ingest {' '.join(call.arguments)!r}: unknown arguments. Write "
            "`diff VERSION_A VERSION_B`, or no arguments."
        )
    datasets_dir = call.settings.datasets_dir
    a, b = (DatasetVersion.find(name, datasets_dir, "diff") for name in call.arguments[1:])
    result = diff(a, b)
    console = table_console()
    for table in diff_tables(result):
        console.print(table)
    return result.model_dump(mode="json")


def run(call: Call) -> Result:
    """Ingest, or compare two versions."""
    if call.arguments:
        return compare(call)
    settings = call.settings
    files = find_sources(settings.data, settings.sources_dir)
    make_dir(settings.datasets_dir, "storage.root")
    version = find_existing(settings.data, settings.datasets_dir, files)
    reused = version is not None
    if version is None:
        with ray_session(settings):
            version = step(settings, files, call.run_dir)
    return {**describe(version), "reused": reused}


JOB = Job(
    name="ingest",
    summary="Create a dataset version from labeled files: read, normalize, reject bad rows, drop "
    "duplicates, resolve conflicting labels, find near-duplicates and likely wrong labels, split "
    "80/10/10 by a hash of the text. The same input and settings give the same version, which is "
    "then reused. `diff VERSION_A VERSION_B` shows what changed between two versions.",
    result="dataset, dataset_version, dataset_dir, counts, splits, excluded_reasons, near_groups, "
    "noise_ceiling (best accuracy of any deterministic classifier on the kept rows), "
    "suspect_labels, report, reused, run_dir, seconds; of diff: a, b, identical, warnings, rows, "
    "labels, counts, inputs, exclude, config, examples",
    sections=("data", "storage", "run", "ray"),
    run=run,
    arguments="[diff VERSION_A VERSION_B]",
)

if __name__ == "__main__":
    main(JOB)
