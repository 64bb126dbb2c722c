"""Engines as Ray actors: tables go round them, and come back in order."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from finsent.errors import InputError
from finsent.inference.config import EngineConfig

log = logging.getLogger(__name__)

_AHEAD = 3  # tables that wait at each actor, so that none has to wait for the driver


class _Actor:
    """One engine in a process of its own."""

    def __init__(self, model_dir: Path, config: EngineConfig, model_version: str) -> None:
        from finsent.inference.engine import Engine
        from finsent.inference.score import Scorer

        self._engine = Engine(model_dir, config)
        self._engine.warm()
        self._scorer = Scorer(self._engine, model_version)

    def backend(self) -> str:
        """What it computes with; it answers when the model is loaded."""
        return self._engine.backend.name

    def score(self, rows: pa.Table) -> pa.Table:
        """See `finsent.inference.score.Scorer`."""
        return self._scorer(rows)


class Scorers:
    """A pool of engines over a cluster; a context that ends them."""

    def __init__(
        self, model_dir: Path, config: EngineConfig, model_version: str, count: int | None,
        start_timeout: int,
    ) -> None:  # fmt: skip
        """Start them and wait until each has loaded the model.

        Args:
            count: of processes; None: one a machine, or one a GPU where there are some.
            start_timeout: seconds.

        Raises:
            InputError: they do not start in time.
        """
        import ray

        count, resources = _shares(count)
        cls: Any = ray.remote(_Actor).options(max_restarts=2, max_task_retries=2, **resources)
        self._actors = [cls.remote(model_dir, config, model_version) for _ in range(count)]
        asked = [actor.backend.remote() for actor in self._actors]
        try:
            ready, late = ray.wait(asked, num_returns=count, timeout=start_timeout)
            if late:
                free = ray.available_resources()
                shown = ", ".join(f"{free.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
                raise InputError(
                    f"predict.start_timeout={start_timeout}: {len(late)} of {count} process(es) "
                    f"have not loaded the model by then; each asks for {resources}, and {shown} "
                    "are free; wait for room, set predict.actors, or raise the timeout"
                )
            self.backends: list[str] = ray.get(ready)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Scorers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """End the processes."""
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def map(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Score tables; the results come in the tables' order, few of them held at a time."""
        import ray

        waiting: deque[Any] = deque()
        for number, table in enumerate(tables):
            actor = self._actors[number % len(self._actors)]
            waiting.append(actor.score.remote(table))
            if len(waiting) >= _AHEAD * len(self._actors):
                yield ray.get(waiting.popleft())
        while waiting:
            yield ray.get(waiting.popleft())


def _shares(count: int | None) -> tuple[int, dict[str, float]]:
    """How many processes, and what each asks of the cluster.

    An engine takes all cores of its machine, so it asks for all CPUs that Ray counts there.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus:
        return (count or gpus), {"num_gpus": 1, "num_cpus": 1}
    sizes = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if count is None:
        return max(1, len(sizes)), {"num_cpus": min(sizes, default=1)}
    a_node = -(-count // max(1, len(sizes)))
    return count, {"num_cpus": max(1, min(sizes, default=1) // a_node)}
