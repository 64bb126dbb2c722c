"""Run the steps of ingest with Ray Data, and read their results back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from finsent.cluster import Cluster
from finsent.data.ingest.stages import Plan, scan
from finsent.data.ingest.task_results import ScanResult, TaskResult
from finsent.data.readers.columns import BLOCK_BYTES, ROWS
from finsent.disk import DiskError, translate_disk_errors
from finsent.errors import InputError, UserError
from finsent.progress import progress_bar

R = TypeVar("R", bound=TaskResult)
T = TypeVar("T")

_STRATEGIES = ("scheduling_strategy", "scheduling_strategy_large_args")  # of `DataContext`
_ERROR_ROW = -1  # in the column `row`; rows of a source have positive numbers
_REPLIES = pa.schema(
    [
        ("result", pa.string()),  # a `TaskResult` as JSON; null: the task had no rows
        ("error", pa.string()),  # for the user
        ("errno", pa.int32()),  # of a disk error
    ]
)

# Ray is imported in functions (0.4 s): an ingest that finds its version does not need Ray.


@contextmanager
def small_blocks() -> Iterator[None]:
    """Set Ray Data's block size to that of the readers, which bounds the memory of tasks."""
    from ray.data import DataContext  # 1 s; with Ray

    context = DataContext.get_current()
    previous = context.target_max_block_size
    context.target_max_block_size = BLOCK_BYTES
    try:
        yield
    finally:
        context.target_max_block_size = previous


@contextmanager
def on_this_node() -> Iterator[None]:
    """Run all tasks of the block on this machine, whose disk holds their files."""
    import ray  # 1 s; with Ray
    from ray.data import DataContext
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    context = DataContext.get_current()
    previous = {name: getattr(context, name) for name in _STRATEGIES}
    node = ray.get_runtime_context().get_node_id()
    for name in _STRATEGIES:
        setattr(context, name, NodeAffinitySchedulingStrategy(node, soft=False))
    try:
        yield
    finally:
        for name in _STRATEGIES:
            setattr(context, name, previous[name])


def run_task(function: Callable[..., T], out: Path, *arguments: Any) -> T:
    """Call `function(out, *arguments)` in a Ray task: the driver reads no texts."""
    import ray  # 1 s; with Ray
    from ray.data import DataContext

    def run() -> T:
        with translate_disk_errors(out):
            return function(out, *arguments)

    task, strategy = ray.remote(num_cpus=1)(run), DataContext.get_current().scheduling_strategy
    if not isinstance(strategy, str):  # of `on_this_node`
        task = task.options(scheduling_strategy=strategy)
    result: T = ray.get(task.remote())
    return result


def scan_sources(plan: Plan) -> Iterator[ScanResult]:
    """Read and clean all sources. With fewer files than tasks, each of the two is its own task."""
    import ray.data  # 1 s; with Ray
    from ray.data import TaskPoolStrategy

    def read(item: pa.Table) -> Iterator[pa.Table]:
        yield ROWS.empty_table()  # a file without rows still has columns
        for index in item["index"].to_pylist():
            try:
                yield from plan.files[index].rows(index)
            except UserError as error:
                yield _error_row(index, error)

    def clean(rows: pa.Table) -> pa.Table:
        errors = rows.filter(pc.equal(rows["row"], _ERROR_ROW))
        if len(errors):
            return _reply(error=errors["fault"][0].as_py())
        return _run_and_reply(lambda: scan(plan, rows) if len(rows) else None, plan)

    def read_and_clean(item: pa.Table) -> Iterator[pa.Table]:
        return (clean(rows) for rows in read(item))

    items = ray.data.from_items(
        [{"index": index} for index in range(len(plan.files))],
        override_num_blocks=len(plan.files),
    )
    task_count, cpus = _cpu_shares()
    if len(plan.files) >= task_count:
        replies = items.map_batches(
            read_and_clean, batch_size=1, batch_format="pyarrow", num_cpus=cpus
        )
    else:  # readers have their own pool, so Ray does not fuse the two into one task
        readers = TaskPoolStrategy(size=len(plan.files))
        replies = items.map_batches(
            read, batch_size=1, batch_format="pyarrow", num_cpus=cpus, compute=readers
        ).map_batches(clean, batch_size=None, batch_format="pyarrow", num_cpus=cpus)
    total_bytes = sum(file.unpacked_bytes for file in plan.files)
    with _progress_bar("read", total_bytes, "B") as progress:
        for result in _read_replies(replies, ScanResult):
            if result is not None:
                progress.update(result.bytes)
                yield result


def map_partitions(
    plan: Plan,
    name: str,
    partition_count: int,
    function: Callable[..., R | None],
    result_type: type[R],
    *arguments: Any,
) -> Iterator[R]:
    """Call `function(plan, partition, *arguments)` for the first `partition_count` partitions.

    Args:
        name: of the step, on its progress bar.
        result_type: what the function returns; None: the partition has no rows.
        arguments: are shared through Ray's object store.
    """
    import ray  # 1 s; with Ray
    import ray.data

    references = [ray.put(argument) for argument in arguments]

    def run(batch: pa.Table) -> pa.Table:
        [partition] = batch["id"].to_pylist()
        return _run_and_reply(lambda: function(plan, partition, *ray.get(references)), plan)

    _, cpus = _cpu_shares()
    replies = ray.data.range(partition_count, override_num_blocks=partition_count).map_batches(
        run, batch_size=1, batch_format="pyarrow", num_cpus=cpus
    )
    with _progress_bar(name, partition_count, "part") as progress:
        for result in _read_replies(replies, result_type):
            progress.update()
            if result is not None:
                yield result


def _cpu_shares() -> tuple[int, int]:
    """Return how many tasks run at once, and the logical CPUs of each.

    On one machine the limit is the number of cores: a local Ray has more logical CPUs, and further
    tasks would take memory and save no time. If each task takes its share of the logical CPUs, the
    next step reuses the workers of the previous one, and Ray starts no others.
    """
    cluster = Cluster.connected()
    cpus = max(cluster.cpus, 1)
    if len(cluster.nodes) > 1:
        return cpus, 1
    task_count = min(cpus, len(os.sched_getaffinity(0)))
    return task_count, cpus // task_count


# --- replies ------------------------------------------------------------------------------------
# Errors are columns of the reply: what a task raises reaches the driver as text among tracebacks.


def _error_row(source: int, error: UserError) -> pa.Table:
    """Return a reader's error as a row of schema `ROWS`."""
    row = {"source": source, "row": _ERROR_ROW, "fault": str(error)}
    return pa.Table.from_pylist([row], schema=ROWS)


def _run_and_reply(work: Callable[[], TaskResult | None], plan: Plan) -> pa.Table:
    try:
        with translate_disk_errors(plan.out):
            result = work()
    except DiskError as error:
        return _reply(errno=error.number)
    except UserError as error:
        return _reply(error=str(error))
    return _reply(result=None if result is None else result.model_dump_json())


def _reply(**columns: str | int | None) -> pa.Table:
    pa.default_memory_pool().release_unused()  # a worker may idle until the end
    return pa.Table.from_pylist([columns], schema=_REPLIES)


def _read_replies(replies: Any, result_type: type[R]) -> Iterator[R | None]:
    """Yield the result of each task, None for a task without rows.

    Raises:
        InputError: a task failed for a reason that the user can correct.
    """
    # Without prefetching: its thread never ends, and might call Ray while Ray is shut down.
    for batch in replies.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for reply in batch.to_pylist():
            if reply["errno"] is not None:
                raise DiskError(reply["errno"], None)  # the caller names the directory
            if reply["error"] is not None:
                raise InputError(reply["error"])
            text = reply["result"]
            yield None if text is None else result_type.parse(text)


def _progress_bar(name: str, total: int, unit: str) -> Any:
    return progress_bar(name, unit, total, terminal_seconds=0.2, log_seconds=30.0, delayed=True)
