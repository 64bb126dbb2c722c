"""A pool of engines in Ray actors: tables are scored in parallel and come back in order.

Neither of Ray's pools replaces this one. `ray.util.ActorPool.map` submits all tables at once, so
that a large file would be in memory completely. Ray Data's actor pool cuts and combines blocks as
it likes, and a resumed run must cut a file exactly where the first run did.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import pyarrow as pa
import ray

from finsent.cluster import Cluster
from finsent.errors import InputError
from finsent.scoring.model import ScoringModel
from finsent.scoring.score import Scorer

_TABLES_PER_ACTOR = 3  # submitted at a time, so that no actor waits for the driver


class EngineActor:
    """One engine in its own process."""

    def __init__(self, model: ScoringModel) -> None:
        self._model = model
        self._scorer: Scorer | None = None  # an error of __init__ would lose its class in Ray

    def backend(self) -> str:
        """Load the model, and return the name of the backend that the engine chose.

        Raises:
            InputError: the model is unusable, or has changed since the run began.
        """
        self._scorer = self._scorer or self._model.load()
        return self._scorer.engine.backend.name

    def score(self, rows: pa.Table, backend: str) -> pa.Table:
        """Score a table as `finsent.scoring.score.Scorer` does.

        Args:
            backend: computes all rows of a run. Each actor by itself may have measured another
                backend to be the fastest.
        """
        if self._scorer is None or self.backend() != backend:
            self._model = self._model.with_backend(backend)
            self._scorer = self._model.load()
        return self._scorer(rows)


class EnginePool:
    """A pool of engines over a cluster; a context that ends them."""

    def __init__(
        self, model: ScoringModel, backend: str | None, actors: int | None, start_timeout: int
    ) -> None:
        """Start the actors and wait until each has loaded the model.

        Args:
            backend: to prefer where the settings leave a choice; None: the fastest.
            actors: None: one per machine, or one per GPU where there are some.
            start_timeout: in seconds.

        Raises:
            InputError: the actors do not start in time.
        """
        count, resources = _resources(actors)
        actor_class: Any = ray.remote(EngineActor)
        actor_class = actor_class.options(max_restarts=2, max_task_retries=2, **resources)
        if backend and model.is_available(backend):
            model = model.with_backend(backend)
        self._actors = [actor_class.remote(model) for _ in range(count)]
        names = [actor.backend.remote() for actor in self._actors]
        try:
            ready, late = ray.wait(names, num_returns=count, timeout=start_timeout)
            if late:
                raise InputError(_late(len(late), count, resources, start_timeout))
            self.backend = Counter(_results(ready)).most_common(1)[0][0]
            self.count = count
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EnginePool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)

    def map(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Score tables, and yield the results in the order of the tables.

        At most `_TABLES_PER_ACTOR` tables per actor are held at a time.
        """
        pending: deque[Any] = deque()
        for number, table in enumerate(tables):
            actor = self._actors[number % len(self._actors)]
            pending.append(actor.score.remote(table, self.backend))
            if len(pending) >= _TABLES_PER_ACTOR * len(self._actors):
                yield from _results([pending.popleft()])
        while pending:
            yield from _results([pending.popleft()])


def _late(late: int, count: int, resources: dict[str, float], start_timeout: int) -> str:
    """Return the error of actors that have not started in time."""
    available = ray.available_resources()
    free = ", ".join(f"{available.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
    return (
        f"predict.start_timeout={start_timeout}: {late} of {count} process(es) have not loaded the "
        f"model by then; each asks for {resources}, and {free} are free. Wait for room, set "
        "predict.actors, or raise the timeout."
    )


def _results(references: list[Any]) -> list[Any]:
    """Return the results of actors; a user's error comes without their traceback.

    Raises:
        InputError: as the actor raised it.
    """
    try:
        return list(ray.get(references))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise


def _resources(actors: int | None) -> tuple[int, dict[str, float]]:
    """Return the number of actors, and the resources that each asks for.

    An engine uses all cores of its machine, so an actor asks for all CPUs that Ray counts there.
    """
    cluster = Cluster.connected()
    gpus = int(cluster.gpus)
    if gpus:
        return (actors or gpus), {"num_gpus": 1, "num_cpus": 1}
    cpus = [node.cpus for node in cluster.nodes if node.cpus]
    if actors is None:
        return max(1, len(cpus)), {"num_cpus": min(cpus, default=1)}
    actors_per_node = -(-actors // max(1, len(cpus)))
    return actors, {"num_cpus": max(1, min(cpus, default=1) // actors_per_node)}
