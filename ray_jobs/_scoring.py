"""Engines as Ray actors: tables go round them, and come back in order."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from finsent.errors import InputError
from finsent.inference.config import EngineConfig
from finsent.inference.export_record import is_installed, read_exports
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.modeling.model_dir import fingerprint

if TYPE_CHECKING:
    from finsent.scoring.score import Scorer, Tagged

log = logging.getLogger(__name__)

_AHEAD = 3  # tables that wait at each actor, so that none has to wait for the driver


class _Actor:
    """One engine in its own process."""

    def __init__(
        self,
        model_dir: Path,
        config: EngineConfig,
        model_version: str,
        model: dict[str, str],
        domain: DomainCalibration | None = None,
        tagged: Tagged | None = None,
    ) -> None:
        self._model_dir, self._version, self._model = model_dir, model_version, model
        self._config, self._domain, self._tagged = config, domain, tagged
        self._scorer: Scorer | None = None  # what __init__ raises would lose its class

    def backend(self) -> str:
        """Return what the engine computes with; answers when the model is loaded.

        Raises:
            InputError: the model is unusable, or not the one that the run began with.
        """
        self._scorer = self._scorer or self._load()
        return self._scorer.engine.backend.name

    def score(self, rows: pa.Table, backend: str) -> pa.Table:
        """See `finsent.scoring.score.Scorer`.

        Args:
            backend: what all rows of a run are computed with: each process by itself may have
                found another one to be the fastest.
        """
        if self._scorer is None or self.backend() != backend:
            self._config = pinned(self._config, backend)
            self._scorer = self._load()
        return self._scorer(rows)

    def _load(self) -> Scorer:
        from finsent.inference.engine import Engine
        from finsent.scoring.score import Scorer

        engine = Engine(self._model_dir, self._config, domain=self._domain)
        # A process that Ray starts again in mid-run would load what is there by then.
        if fingerprint(self._model_dir) != self._model:
            raise InputError(
                f"predict.model={str(self._model_dir)!r}: has changed since the run began. Run "
                "again when it is complete."
            )
        engine.warm_up()
        return Scorer(engine, self._version, self._tagged)


def pinned(config: EngineConfig, backend: str) -> EngineConfig:
    """Return settings that leave no choice but a backend.

    Args:
        backend: library and precision, e.g. onnxruntime-int8.
    """
    library, _, precision = backend.rpartition("-")
    return EngineConfig.model_validate(
        {**config.model_dump(), "backend": library, "precision": precision}
    )


class Scorers:
    """A pool of engines over a cluster; a context that ends them."""

    def __init__(
        self,
        model_dir: Path,
        config: EngineConfig,
        model_version: str,
        model: dict[str, str],
        backend: str | None,
        count: int | None,
        start_timeout: int,
        domain: DomainCalibration | None = None,
        tagged: Tagged | None = None,
    ) -> None:
        """Start the processes and wait until each has loaded the model.

        Args:
            model: fingerprint of the model's files, which must stay.
            backend: to prefer where the config leaves a choice; None: the fastest.
            count: of processes; None: one per machine, or one per GPU where there are some.
            start_timeout: seconds.
            domain: calibration that is applied after the model's own; None: none is.
            tagged: calibrations by the tags of rows; None: `domain` is for all rows.

        Raises:
            InputError: they do not start in time.
        """
        import ray

        count, resources = _shares(count)
        cls: Any = ray.remote(_Actor).options(max_restarts=2, max_task_retries=2, **resources)
        if backend and _may_use(backend, model_dir):
            config = pinned(config, backend)
        self._actors = [
            cls.remote(model_dir, config, model_version, model, domain, tagged)
            for _ in range(count)
        ]
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
            self.backend = Counter(_answers(ready)).most_common(1)[0][0]
            self.count = count
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Scorers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def map(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Score tables; the results come in the tables' order, few of them held at a time."""
        waiting: deque[Any] = deque()
        for number, table in enumerate(tables):
            actor = self._actors[number % len(self._actors)]
            waiting.append(actor.score.remote(table, self.backend))
            if len(waiting) >= _AHEAD * len(self._actors):
                yield from _answers([waiting.popleft()])
        while waiting:
            yield from _answers([waiting.popleft()])


def _answers(asked: list[Any]) -> list[Any]:
    """Return what processes answer; an error for the user comes without their traceback.

    Raises:
        InputError: as the process raised it.
    """
    import ray

    try:
        return list(ray.get(asked))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise


def _may_use(backend: str, model_dir: Path) -> bool:
    """Whether this machine has a backend that an earlier run used."""
    names = {one.name for one in read_exports(model_dir) if is_installed(one.backend)}
    return backend.startswith("torch-") or backend in names


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
