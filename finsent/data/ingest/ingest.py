"""Ingest: from labeled files to a published dataset version, with Ray Data.

Ray Data streams the sources' blocks through `scan` and runs the later steps over partitions; rows
meet through files (`finsent.data.ingest.exchange`). Only counts and ids reach the driver.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from finsent.bars import bar
from finsent.cluster import Cluster
from finsent.data.config import DataConfig
from finsent.data.ingest.finish import look_for_noise, merge_side_table, merge_side_tables
from finsent.data.ingest.groups import Groups, resolve
from finsent.data.ingest.stages import (
    Plan,
    Stats,
    compare_partition,
    read_edges,
    scan,
    settle_partition,
    write_partition,
)
from finsent.data.readers.columns import BLOCK_BYTES, ROWS
from finsent.data.rows.split import split_of
from finsent.data.sources.source_file import SourceFile
from finsent.data.versions.dataset import MANIFEST, SCHEMA_VERSION, DatasetVersion
from finsent.data.versions.manifest import Tally
from finsent.data.versions.report import write_report
from finsent.disk import DiskError, storing
from finsent.errors import InputError, UserError
from finsent.files import digest, sha256_file, staged_dir, write_json

log = logging.getLogger(__name__)

_BYTES_PER_PARTITION = 16 << 20
_MOST_PARTITIONS = 1024  # from 16 GB on they grow: every block of a source has a part for each
_FAILED = -1  # no number of a row


def version_id(files: list[SourceFile], config: DataConfig) -> str:
    """The id of the version that these inputs give: a digest of bytes, names and settings."""
    settings = config.model_dump(mode="json", exclude={"sources", "exclude", "name"})
    inputs = [file.identity for file in files]
    return digest({"schema": SCHEMA_VERSION, "settings": settings, "inputs": inputs})[:12]


def ingest(
    config: DataConfig, datasets_dir: Path, files: list[SourceFile], refused: Path | None = None
) -> DatasetVersion:
    """Make, or find, the dataset version of these files. Needs a running Ray when it is new.

    Args:
        refused: directory for the rows because of which nothing is published; None: not kept.

    Raises:
        InputError: too many rows are rejected, too few are left, or the disk is full.
    """
    version = version_id(files, config)
    final = datasets_dir / version
    existing = find_existing(config, datasets_dir, files)
    if existing is not None:
        log.info("dataset version %s exists: reused", version)
        return existing
    if final.exists():
        raise InputError(f"{str(final)!r}: is incomplete (no {MANIFEST}); delete it and run again")
    with storing(datasets_dir, "storage.root"), staged_dir(final) as staging:
        size = sum(file.unpacked_bytes for file in files)
        partitions = min(1 + size // _BYTES_PER_PARTITION, _MOST_PARTITIONS)
        manifest = _run(Plan(files, config, staging, partitions), version, refused)
        write_json(staging / MANIFEST, manifest)
    made = DatasetVersion.open(final, verify=False)
    made.mark_latest()
    return made


def find_existing(
    config: DataConfig, datasets_dir: Path, files: list[SourceFile]
) -> DatasetVersion | None:
    """The published version of these files and settings, if there is one. Needs no Ray."""
    version = DatasetVersion.at(datasets_dir / version_id(files, config))
    if version is not None:
        version.mark_latest()
    return version


def _run(plan: Plan, version: str, refused: Path | None) -> dict[str, Any]:
    """All steps; the version's directory is whole but for its manifest, which is returned."""
    tally = Tally(plan.files, plan.config)
    with _data_context():
        for stats in _scan(plan):
            tally.add_scan(stats)
        with _keeping(plan, "rejected", refused):
            tally.check_scanned()
        written: Iterator[Stats]
        if plan.config.near_duplicates.enabled:
            for stats in _over_partitions(plan, "settle", plan.partitions, settle_partition):
                tally.add_settled(stats)
            with _keeping(plan, "conflicts", refused):
                tally.check_settled()
            shutil.rmtree(plan.by_key.folder, ignore_errors=True)  # the disk may be small
            written = _over_partitions(
                plan, "write", plan.partitions, write_partition, _groups(plan)
            )
        else:
            written = _over_partitions(plan, "settle", plan.partitions, settle_partition)
        for stats in written:
            if "fates" in stats:
                tally.add_settled(stats)
            tally.add_written(stats)
    with _keeping(plan, "conflicts", refused):
        tally.check_settled()
    tally.check_written()
    _task(merge_side_tables, plan.out, plan.work)
    shutil.rmtree(plan.work)
    noise = None
    if plan.config.label_noise.enabled:
        noise = _task(look_for_noise, plan.out, plan.config.label_noise)
    manifest = tally.manifest(version, noise)
    _task(write_report, plan.out, manifest)
    listed = {entry["path"] for split in manifest["splits"].values() for entry in split["files"]}
    manifest["files"] = _digests(plan.out, listed)
    return manifest


@contextmanager
def _keeping(plan: Plan, table: str, refused: Path | None) -> Iterator[None]:
    """When a check stops the job, keep the rows that it is about for their owner."""
    try:
        yield
    except InputError as error:
        if refused is None or not (plan.work / table).is_dir():
            raise
        path = _task(merge_side_table, refused, plan.work, table)
        raise InputError(f"{error}; they are listed in {str(path)!r}") from None


def _digests(folder: Path, listed: set[str]) -> list[dict[str, str]]:
    """What lies beside the splits: small tables, the report and its pictures."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return [{"path": n, "sha256": sha256_file(p)} for n, p in names.items() if n not in listed]


def _task(function: Callable[..., Any], out: Path, *arguments: Any) -> Any:
    """Run what reads texts where data is processed: never in the driver."""
    import ray

    def run() -> Any:
        with storing(out):
            return function(out, *arguments)

    return ray.get(ray.remote(num_cpus=1)(run).remote())


@contextmanager
def _data_context() -> Iterator[None]:
    """Ray Data with small blocks, so that what is on its way stays small, too."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before = context.target_max_block_size
    context.target_max_block_size = BLOCK_BYTES
    try:
        yield
    finally:
        context.target_max_block_size = before


def _scan(plan: Plan) -> Iterator[Stats]:
    """Read and clean all sources. Few files: reading and cleaning are separate tasks."""
    import ray.data
    from ray.data import TaskPoolStrategy

    def read(item: pa.Table) -> Iterator[pa.Table]:
        yield ROWS.empty_table()  # a file without rows still has columns
        for index in item["index"].to_pylist():
            try:
                yield from plan.files[index].rows(index)
            except UserError as error:
                yield _failed(index, error)

    def clean(rows: pa.Table) -> pa.Table:
        failed = rows.filter(pc.equal(rows["row"], _FAILED))
        if len(failed):
            return _reply({"error": failed["fault"][0].as_py()})
        return _answer(lambda: scan(plan, rows) if len(rows) else None, plan)

    def read_and_clean(item: pa.Table) -> Iterator[pa.Table]:
        return (clean(rows) for rows in read(item))

    items = ray.data.from_items(
        [{"index": index} for index in range(len(plan.files))],
        override_num_blocks=len(plan.files),
    )
    tasks, cpus = _shares()
    if len(plan.files) >= tasks:
        replies = items.map_batches(
            read_and_clean, batch_size=1, batch_format="pyarrow", num_cpus=cpus
        )
    else:  # readers have a pool, so Ray does not make one task of the two
        readers = TaskPoolStrategy(size=len(plan.files))
        replies = items.map_batches(
            read, batch_size=1, batch_format="pyarrow", num_cpus=cpus, compute=readers
        ).map_batches(clean, batch_size=None, batch_format="pyarrow", num_cpus=cpus)
    total = sum(file.unpacked_bytes for file in plan.files)
    with _bar("read", total, "B") as shown:
        for stats in _replies(replies):
            shown.update(stats["bytes"])
            yield stats


def _over_partitions(
    plan: Plan, name: str, count: int, function: Callable[..., Stats], *arguments: Any
) -> Iterator[Stats]:
    """Run a step over the first `count` partitions.

    `arguments` are shared through Ray's object store.
    """
    import ray
    import ray.data

    shared = [ray.put(argument) for argument in arguments]

    def run(batch: pa.Table) -> pa.Table:
        [index] = batch["id"].to_pylist()
        return _answer(lambda: function(plan, index, *ray.get(shared)), plan)

    replies = ray.data.range(count, override_num_blocks=count).map_batches(
        run, batch_size=1, batch_format="pyarrow", num_cpus=_shares()[1]
    )
    with _bar(name, count, "part") as shown:
        for stats in _replies(replies):
            shown.update()
            yield stats


def _shares() -> tuple[int, int]:
    """How many tasks run at once, and the logical CPUs of each.

    On one machine no more tasks than cores: a local Ray has more logical CPUs than that, and a task
    more takes memory and no time. When each task takes its share, the next step also finds the
    workers of the last one free, and Ray starts no others.
    """
    cluster = Cluster.connected()
    cpus = max(cluster.cpus, 1)
    if len(cluster.nodes) > 1:
        return cpus, 1
    tasks = min(cpus, len(os.sched_getaffinity(0)))
    return tasks, cpus // tasks


def _failed(source: int, error: UserError) -> pa.Table:
    """A reader's error as a row: what a task raises reaches the driver as text among tracebacks."""
    row = {"source": source, "row": _FAILED, "fault": str(error)}
    return pa.Table.from_pylist([row], schema=ROWS)


def _answer(work: Callable[[], Stats | None], plan: Plan) -> pa.Table:
    """What a task did, or what its user has to mend."""
    try:
        with storing(plan.out):
            return _reply(work())
    except DiskError as error:
        return _reply({"errno": error.number})
    except UserError as error:
        return _reply({"error": str(error)})


def _reply(stats: Stats | None) -> pa.Table:
    pa.default_memory_pool().release_unused()  # a worker may idle until the end
    return pa.table({"stats": [json.dumps(stats)]})


def _replies(dataset: Any) -> Iterator[Stats]:
    # Without fetching ahead: its thread never ends, and might call Ray while that is shut down.
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for text in batch["stats"].to_pylist():
            stats = json.loads(text)
            if stats is not None and "errno" in stats:
                raise DiskError(stats["errno"], None)  # of what is being made
            if stats is not None and "error" in stats:
                raise InputError(stats["error"])
            if stats is not None:
                yield stats


def _groups(plan: Plan) -> Groups:
    """Compare the texts of each band's partition, and resolve the pairs to groups."""
    for _ in _over_partitions(plan, "compare", plan.by_band.partitions, compare_partition):
        pass
    shutil.rmtree(plan.by_band.folder, ignore_errors=True)  # the disk may be small
    config = plan.config
    own = config.split.group_by is None and config.split.time.column is None
    return resolve(read_edges(plan), lambda units: split_of(units, config.salt, config.split), own)


def _bar(name: str, total: int, unit: str) -> Any:
    return bar(name, unit, total, live=0.2, log=30.0, late=True)
