"""Ingest: from labeled files to a published dataset version.

Ray Data streams the blocks of the sources through `scan` and runs the later steps on partitions.
Rows that belong together meet through files (`finsent.data.ingest.exchange`). The driver receives
counts and ids only. Sources of up to a megabyte are ingested in this process.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from finsent.data.config import DataConfig
from finsent.data.ingest import local_tasks, ray_tasks
from finsent.data.ingest.exported_metrics import IngestMetrics
from finsent.data.ingest.groups import Groups, resolve
from finsent.data.ingest.noise import find_label_noise
from finsent.data.ingest.side_tables import merge_side_table, merge_side_tables
from finsent.data.ingest.stages import (
    Plan,
    compare_partition,
    read_edges,
    settle_partition,
    write_partition,
)
from finsent.data.ingest.tally import Tally
from finsent.data.ingest.task_results import (
    CompareResult,
    ScanResult,
    SettleResult,
    TaskResult,
    WriteResult,
)
from finsent.data.rows.split import split_of
from finsent.data.sources.source_file import SourceFile
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.manifest import MANIFEST, SCHEMA_VERSION, Manifest
from finsent.data.versions.report import write_report
from finsent.errors import InputError
from finsent.files import digest, sha256_file
from finsent.job_metrics import JobMetrics
from finsent.records import FileDigest
from finsent.storage import Location, as_location

log = logging.getLogger(__name__)

_BYTES_PER_PARTITION = 16 << 20
# Each block of a source has a part for each partition, so from 16 GB on partitions grow instead.
_MAX_PARTITIONS = 1024
# Up to here the steps take about a second, and the processes of Ray Data take five CPU seconds.
_MAX_LOCAL_BYTES = 1 << 20

R = TypeVar("R", bound=TaskResult)
T = TypeVar("T")


class Tasks(Protocol):
    """Functions that run the steps; see `ray_tasks` and `local_tasks`."""

    def small_blocks(self) -> AbstractContextManager[None]:
        """Set the size of the blocks of sources."""

    def run_task(self, function: Callable[..., T], out: Path, *arguments: Any) -> T:
        """Call `function(out, *arguments)`."""

    def scan_sources(self, plan: Plan) -> Iterator[ScanResult]:
        """Read and clean all sources."""

    def map_partitions(
        self,
        plan: Plan,
        name: str,
        partition_count: int,
        function: Callable[..., R | None],
        result_type: type[R],
        /,
        *arguments: Any,
    ) -> Iterator[R]:
        """Call `function(plan, partition, *arguments)` for the first partitions."""


def needs_ray(files: list[SourceFile]) -> bool:
    """Return whether an ingest of these files needs a running Ray."""
    return _unpacked_bytes(files) > _MAX_LOCAL_BYTES


def _unpacked_bytes(files: list[SourceFile]) -> int:
    return sum(file.unpacked_bytes for file in files)


def version_id(files: list[SourceFile], config: DataConfig) -> str:
    """Return the version id of these inputs: a digest of their bytes, names and settings."""
    settings = config.model_dump(mode="json", exclude={"sources", "exclude", "name"})
    inputs = [file.identity for file in files]
    return digest({"schema": SCHEMA_VERSION, "settings": settings, "inputs": inputs})[:12]


def find_existing(
    config: DataConfig, versions: Path | Location, files: list[SourceFile]
) -> DatasetVersion | None:
    """Return the published version of these files and settings, or None. Needs no Ray."""
    location = as_location(versions, "storage.root")
    version = DatasetVersion.at(location / version_id(files, config))
    if version is not None:
        version.mark_latest()
    return version


def ingest(
    config: DataConfig,
    versions: Path | Location,
    files: list[SourceFile],
    refused_rows_dir: Path | None = None,
) -> DatasetVersion:
    """Create the dataset version of these files, or return the existing one.

    A new version needs a running Ray if `needs_ray(files)`.

    Args:
        refused_rows_dir: directory for a table of the rows that stop the ingest; None: no table.

    Raises:
        InputError: too many rows are rejected, too few are left, or the disk is full.
    """
    location = as_location(versions, "storage.root")
    version, trees = version_id(files, config), location.trees
    existing = find_existing(config, location, files)
    if existing is not None:
        log.info("dataset version %s exists: reused", version)
        return existing
    if trees.is_published(version):
        raise InputError(
            f"{trees.locate(version)!r}: is incomplete (no {MANIFEST}). Delete it and run again."
        )
    partitions = min(1 + _unpacked_bytes(files) // _BYTES_PER_PARTITION, _MAX_PARTITIONS)
    tasks: Tasks = ray_tasks if needs_ray(files) else local_tasks
    # Machines write to a directory that they share. Otherwise this machine does all.
    is_pinned = tasks is ray_tasks and not location.is_local
    with (
        trees.publish(version) as staging,
        ray_tasks.on_this_node() if is_pinned else nullcontext(),
        JobMetrics(dataset=config.name) as job_metrics,
    ):
        plan = Plan(files, config, staging, partitions)
        metrics = IngestMetrics(job_metrics)
        manifest = _run_steps(plan, tasks, version, refused_rows_dir, metrics)
        manifest.write(staging / MANIFEST)
    published = DatasetVersion.fetched(location / version)
    published.mark_latest()
    return published


def _run_steps(
    plan: Plan, tasks: Tasks, version: str, refused_rows_dir: Path | None, metrics: IngestMetrics
) -> Manifest:
    """Write every file of the version except the manifest, and return the manifest."""
    tally = Tally(plan.files, plan.config)
    with tasks.small_blocks():
        for scanned in tasks.scan_sources(plan):
            tally.add_scan(scanned)
            if not plan.files[scanned.source].excluded:
                metrics.scanned(scanned)
        with _keep_refused_rows(plan, tasks, "rejected", refused_rows_dir):
            tally.check_scanned()
        for settled in tasks.map_partitions(
            plan, "settle", plan.partitions, settle_partition, SettleResult
        ):
            tally.add_settled(settled)
        with _keep_refused_rows(plan, tasks, "conflicts", refused_rows_dir):
            tally.check_settled()
        if plan.config.near_duplicates.enabled:
            shutil.rmtree(plan.by_key.folder, ignore_errors=True)  # the disk may be small
            groups = _find_groups(plan, tasks)
            for written in tasks.map_partitions(
                plan, "write", plan.partitions, write_partition, WriteResult, groups
            ):
                tally.add_written(written)
    tally.check_written()
    metrics.settled(tally.counts)
    tasks.run_task(merge_side_tables, plan.out, plan.work_dir)
    shutil.rmtree(plan.work_dir)
    noise = None
    if plan.config.label_noise.enabled:
        noise = tasks.run_task(find_label_noise, plan.out, plan.config.label_noise)
    manifest = tally.manifest(version, noise)
    tasks.run_task(write_report, plan.out, manifest)
    return manifest.with_files(_digest_other_files(plan.out, manifest))


def _find_groups(plan: Plan, tasks: Tasks) -> Groups:
    """Compare the texts of each partition of bands, and resolve the near pairs to groups."""
    for _ in tasks.map_partitions(
        plan, "compare", plan.by_band.partitions, compare_partition, CompareResult
    ):
        pass
    shutil.rmtree(plan.by_band.folder, ignore_errors=True)  # the disk may be small
    config = plan.config
    return resolve(
        read_edges(plan),
        lambda units: split_of(units, config.salt, config.split),
        plan.splits_by_text,
    )


@contextmanager
def _keep_refused_rows(plan: Plan, tasks: Tasks, table: str, folder: Path | None) -> Iterator[None]:
    """Write the table of rejected rows to the folder if the block's check stops the ingest."""
    try:
        yield
    except InputError as error:
        if folder is None or not (plan.work_dir / table).is_dir():
            raise
        path = tasks.run_task(merge_side_table, folder, plan.work_dir, table)
        raise InputError(f"{error} The rows are listed in {str(path)!r}.") from None


def _digest_other_files(folder: Path, manifest: Manifest) -> list[FileDigest]:
    """Return the digests of the side tables, the report and its pictures."""
    split_files = {file.path for file in manifest.split_files}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return [
        FileDigest(path=name, sha256=sha256_file(path))
        for name, path in names.items()
        if name not in split_files
    ]
