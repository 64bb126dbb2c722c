"""Make a dataset version from labelled files."""

from __future__ import annotations

import logging

from finsent.data.dataset import DatasetVersion
from finsent.data.ingest import find_existing, ingest
from finsent.data.sources import SourceFile, find_sources
from finsent.files import make_dir
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main
from ray_jobs._ray import ray_session

log = logging.getLogger(__name__)


def step(settings: Settings, files: list[SourceFile]) -> DatasetVersion:
    """Ingest on a running Ray."""
    size = sum(file.bytes for file in files) / 1e6
    log.info("ingest: %d file(s), %.1f MB", len(files), size)
    return ingest(settings.data, settings.datasets_dir, files)


def describe(version: DatasetVersion) -> Result:
    """The result keys of a dataset version."""
    counts = version.manifest["counts"]
    log.info(
        "dataset %s: %d rows in, %d kept (%s), %d rejected, %d duplicates, %d in conflict",
        version.version,
        counts["rows_in"],
        counts["kept"],
        ", ".join(f"{name} {s['rows']}" for name, s in version.manifest["splits"].items()),
        counts["rejected"],
        counts["duplicates"],
        counts["conflicts"],
    )
    return {
        "dataset": version.manifest["name"],
        "dataset_version": version.version,
        "dataset_dir": str(version.path),
        "counts": counts,
        "splits": {name: s["rows"] for name, s in version.manifest["splits"].items()},
    }


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    files = find_sources(settings.data)
    make_dir(settings.datasets_dir, "storage.root")
    version = find_existing(settings.data, settings.datasets_dir, files)
    reused = version is not None
    if version is None:
        with ray_session(settings):
            version = step(settings, files)
    return {**describe(version), "reused": reused}


JOB = Job(
    name="ingest",
    summary="Make a dataset version from labelled CSV files: read, normalise, reject bad rows, "
    "drop duplicates, resolve conflicting labels, split 80/10/10 by a hash of the text. "
    "The same input and settings give the same version, which is then reused.",
    result="dataset, dataset_version, dataset_dir, counts, splits, reused, run_dir, seconds",
    sections=("data", "storage", "run", "ray"),
    run=run,
)

if __name__ == "__main__":
    main(JOB)
