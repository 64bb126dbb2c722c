"""Create a dataset version from labeled files, or compare two versions."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path

from finsent.data.ingest.ingest import find_existing, ingest, needs_ray
from finsent.data.ingest.results import DiffResult, IngestResult
from finsent.data.sources.files import find_sources
from finsent.data.sources.source_file import SourceFile
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.diff import diff
from finsent.data.versions.diff_tables import diff_tables
from finsent.errors import ConfigError
from finsent.ray_session import joins_cluster, ray_session
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, main, table_console

log = logging.getLogger(__name__)


def step(settings: Settings, files: list[SourceFile], run_dir: Path | None) -> DatasetVersion:
    """Ingest files, on a running Ray if `needs_ray(files)`.

    Rows that stop the ingest are listed in the run's directory.
    """
    megabytes = sum(file.bytes for file in files) / 1e6
    log.info("ingest: %d file(s), %.1f MB", len(files), megabytes)
    return ingest(settings.data, settings.workspace.versions(settings.data.name), files, run_dir)


def compare(call: Call) -> DiffResult:
    """Compare two dataset versions."""
    if len(call.arguments) != 3 or call.arguments[0] != "diff":
        raise ConfigError(
            f"ingest {' '.join(call.arguments)!r}: unknown arguments. Write "
            "`diff VERSION_A VERSION_B`, or no arguments."
        )
    versions = call.settings.workspace.versions(call.settings.data.name)
    a, b = (DatasetVersion.find(name, versions, "diff") for name in call.arguments[1:])
    changes = diff(a, b)
    console = table_console()
    for table in diff_tables(changes):
        console.print(table)
    return DiffResult(**dict(changes))


def run(call: Call) -> IngestResult | DiffResult:
    """Run the job."""
    if call.arguments:
        return compare(call)
    settings = call.settings
    versions = settings.workspace.versions(settings.data.name)
    files = find_sources(settings.data, settings.workspace.sources_dir)
    versions.check_writable()
    version = find_existing(settings.data, versions, files)
    is_reused = version is not None
    if version is None:
        # A cluster that the job is to join is checked, also where a small ingest does without.
        needs_session = needs_ray(files) or joins_cluster(settings)
        with ray_session(settings) if needs_session else nullcontext():
            version = step(settings, files, call.run_dir)
    return IngestResult.of(version, is_reused)


JOB = Job(
    name="ingest",
    summary="Create a dataset version from labeled files: read, normalize, reject bad rows, drop "
    "duplicates, resolve conflicting labels, find near-duplicates and likely wrong labels, split "
    "80/10/10 by a hash of the text. The same input and settings give the same version, which is "
    "then reused. `diff VERSION_A VERSION_B` shows what changed between two versions.",
    result={"": IngestResult, "diff": DiffResult},
    sections=("data", "storage", "run", "ray"),
    run=run,
    arguments="[diff VERSION_A VERSION_B]",
)

if __name__ == "__main__":
    main(JOB)
