"""The service with classifiers whose engine only waits, to load gateways by themselves.

python -m benchmarks.stub_service serve.topology=split ...: the settings of `ray_jobs.serve`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finsent.inference.backends import Logits
from finsent.inference.batching import Row
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from ray_jobs import serve
from ray_jobs._cli import main
from serve_app import graph
from serve_app.deployments.replicas import ClassifierReplica
from serve_app.split import classifier

BATCH_SECONDS, MAX_ROWS = "FINSENT_STUB_SECONDS", "FINSENT_STUB_ROWS"  # environment variables
_DEFAULT_SECONDS = 0.0002


class StubEngine(Engine):
    """Answers each micro-batch after the seconds of `BATCH_SECONDS`.

    `MAX_ROWS` limits the rows of a micro-batch, where it is set.
    """

    def __init__(self, model_dir: Path, config: EngineConfig) -> None:
        super().__init__(model_dir, config)
        self._seconds = float(os.environ.get(BATCH_SECONDS, _DEFAULT_SECONDS))
        if MAX_ROWS in os.environ:
            self.backend.max_rows = int(os.environ[MAX_ROWS])

    def compute(self, rows: Sequence[Row]) -> Logits:
        """Return logits of zero."""
        time.sleep(self._seconds)
        return np.zeros((len(rows), len(LABELS)), np.float32)


class StubClassifier(ClassifierReplica):
    """A classifier with the stub engine."""

    async def __init__(self, settings: str) -> None:  # type: ignore[misc] # as its base class
        replaced: Any = classifier
        replaced.Engine = StubEngine
        await super().__init__(settings)


if __name__ == "__main__":
    from benchmarks.stub_service import StubClassifier as Importable  # not of `__main__`

    replaced: Any = graph
    replaced.ClassifierReplica = Importable
    main(serve.JOB)
