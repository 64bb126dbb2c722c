"""A classifier: the engines of one process, which gateways send micro-batches to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from finsent.errors import InputError
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.memory import release_unused
from finsent.registry.registry import Registry
from serve_app.service.model import check_device
from serve_app.service.streams import ThreadStreams
from serve_app.split.messages import (
    ComputedBatch,
    EngineInfo,
    MicroBatch,
    NotLoaded,
    RefusedLoad,
)
from serve_app.split.queues import GatewayQueues

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0  # after the last micro-batch of an old version, until it is released
_MAX_FAILURES = 3  # micro-batches in a row; an error of CUDA, for example, lasts
_RATE_SHARE = 0.1  # weight of a new measurement in the running rate


@dataclass(eq=False)
class _Version:
    engine: Engine
    streams: ThreadStreams
    last_used: float
    running: int = 0  # micro-batches


@dataclass
class Classifier:
    """Computes micro-batches. All methods belong to one event loop."""

    name: str
    registry: Registry
    config: EngineConfig
    num_gpus: float  # that Ray has reserved for this process
    clock: Callable[[], float] = time.monotonic
    queues: GatewayQueues = field(default_factory=GatewayQueues)
    _versions: dict[str, _Version] = field(default_factory=dict)  # the latest load is last
    _loading: dict[str, asyncio.Task[EngineInfo | RefusedLoad]] = field(default_factory=dict)
    _stream_rate: float = 0.0  # tokens/s of a stream; 0: not measured yet
    _failures: int = 0  # micro-batches in a row

    async def load(self, reference: str) -> EngineInfo | RefusedLoad:
        """Load and warm up a version, unless it is loaded; return why it cannot be loaded.

        Args:
            reference: alias or version.
        """
        version = await asyncio.to_thread(self.registry.resolve, reference) or reference
        return await asyncio.shield(self._load(version))

    def _load(self, version: str) -> asyncio.Task[EngineInfo | RefusedLoad]:
        """Return the task that loads a version; calls at the same time share it."""
        task = self._loading.get(version)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load_once(version))
            self._loading[version] = task
            task.add_done_callback(lambda _: self._loading.pop(version))
        return task

    async def _load_once(self, version: str) -> EngineInfo | RefusedLoad:
        loaded = self._versions.get(version)
        if loaded is None:
            try:
                engine = await asyncio.to_thread(self._engine, version)
            except InputError as error:
                return RefusedLoad(str(error))
            except Exception as error:
                log.exception("model version %s cannot be loaded", version)
                return RefusedLoad(f"model version {version}: cannot be loaded ({error!r})")
            streams = ThreadStreams(engine.compute, engine.streams)
            loaded = _Version(engine, streams, self.clock())
            log.info("model %s is loaded (%s)", version, engine.backend.name)
        self._versions.pop(version, None)
        self._versions[version] = loaded  # the last one
        loaded.last_used = self.clock()
        return EngineInfo.of(loaded.engine)

    def _engine(self, version: str) -> Engine:
        """Return the engine of a version.

        Raises:
            InputError: the version cannot be used, or computes on a CPU in spite of a GPU.
        """
        engine = Engine(self.registry.get(version).path, self.config)
        check_device(engine, self.num_gpus)
        engine.warm_up()
        release_unused()  # memory of the backends that were not chosen
        return engine

    async def compute(self, batch: MicroBatch) -> ComputedBatch | NotLoaded:
        """Compute a micro-batch, or begin to load its version."""
        version = self._versions.get(batch.version)
        if version is None:
            self._load(batch.version)
            return NotLoaded(self.name)
        version.last_used = self.clock()
        version.running += 1
        rows = batch.rows
        with self.queues.counted(batch):
            try:
                logits, seconds = await version.streams.submit(rows, lambda: [*range(len(rows))])
                self._failures = 0
            except Exception:
                self._failures += 1
                raise
            finally:
                version.running -= 1
            self._measure(batch.tokens, seconds)
        return ComputedBatch(self.name, logits, seconds, self.queues.of_others(batch.gateway))

    def _measure(self, tokens: int, seconds: float) -> None:
        rate, mean = tokens / max(seconds, 1e-6), self._stream_rate
        self._stream_rate = mean + _RATE_SHARE * (rate - mean) if mean else rate

    @property
    def drain_seconds(self) -> float:
        """Time for this classifier's share of all waiting work, at the measured rate."""
        streams = next((version.engine.streams for version in self._versions.values()), 0)
        rate = self._stream_rate * streams
        return self.queues.tokens / rate if rate else 0.0

    def check(self) -> None:
        """Release versions that no gateway uses.

        Raises:
            RuntimeError: no version is loaded, or micro-batches fail.
        """
        if not self._versions:
            raise RuntimeError("no model is loaded")
        if self._failures >= _MAX_FAILURES:
            raise RuntimeError(f"{self._failures} micro-batches failed in a row")
        *old, _ = self._versions.items()
        for name, version in old:
            if not version.running and self.clock() - version.last_used > _IDLE_SECONDS:
                version.streams.close()
                del self._versions[name]
                log.info("model %s is released", name)
