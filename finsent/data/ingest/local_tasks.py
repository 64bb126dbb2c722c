"""Run the steps of a small ingest in this process, because starting tasks would take longer.

The functions are those of `finsent.data.ingest.ray_tasks`. Rows and files are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from finsent.data.ingest.stages import Plan, scan
from finsent.data.ingest.task_results import ScanResult, TaskResult
from finsent.disk import translate_disk_errors

R = TypeVar("R", bound=TaskResult)
T = TypeVar("T")


def small_blocks() -> AbstractContextManager[None]:
    """Return a context that does nothing: without Ray, the readers set the size of row blocks."""
    return nullcontext()


def run_task(function: Callable[..., T], out: Path, *arguments: Any) -> T:
    """Call `function(out, *arguments)`."""
    with translate_disk_errors(out):
        return function(out, *arguments)


def scan_sources(plan: Plan) -> Iterator[ScanResult]:
    """Read and clean all sources, one after the other."""
    for index, file in enumerate(plan.files):
        for rows in file.rows(index):
            if len(rows):
                with translate_disk_errors(plan.out):
                    result = scan(plan, rows)
                yield result


def map_partitions(
    plan: Plan,
    _name: str,
    partition_count: int,
    function: Callable[..., R | None],
    _result_type: type[R],
    *arguments: Any,
) -> Iterator[R]:
    """Call `function(plan, partition, *arguments)` for the first `partition_count` partitions.

    The results are not converted, and a small step shows no progress.
    """
    for partition in range(partition_count):
        with translate_disk_errors(plan.out):
            result = function(plan, partition, *arguments)
        if result is not None:
            yield result
