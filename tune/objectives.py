"""Objectives that training does not report: measured on a finished trial's model.

To add one: add its direction to `tune.config.MEASURED` and its function to `MEASURES`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finsent.data.versions.dataset import DatasetVersion
from finsent.modeling.rows_origin import RowsOrigin
from finsent.settings import Settings

_LATENCY_TEXTS = 100
_LATENCY_RUNS = 3


@dataclass(frozen=True)
class TrialModel:
    """A trial's model, and how it was trained."""

    settings: Settings
    model_dir: Path
    version: DatasetVersion


def parameters(model: TrialModel) -> float:
    """Return the number of weights."""
    # Heavy imports are in functions: the driver imports this module, and measures nothing.
    from safetensors import safe_open

    with safe_open(model.model_dir / "model.safetensors", "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return float(sum(math.prod(shape) for shape in shapes))


def ece(model: TrialModel) -> float:
    """Return the calibration error on the validation split, after temperature scaling there."""
    from finsent.evaluation.calibration import calibrate  # see `parameters`
    from finsent.inference.engine import Engine

    rows = model.version.read("validation", ["text", "label"])
    origin: RowsOrigin = {"dataset_version": model.version.version, "split": "validation"}
    engine = Engine(model.model_dir, model.settings.engine.exact())
    calibration = calibrate(engine, rows, model.settings.evaluate.wanted_accuracy, origin)
    assert calibration.ece_after is not None  # None: of a calibration of other programs
    return calibration.ece_after


def latency_ms(model: TrialModel) -> float:
    """Return the median time of the exported model's engine for one text, in milliseconds.

    Up to 100 validation texts, one at a time, three times. The least of the three medians counts,
    as other trials run at the same time.
    """
    from finsent.export.exporter import export_model  # see `parameters`
    from finsent.inference.engine import Engine

    rows = model.version.read("validation", ["text", "label"])
    origin: RowsOrigin = {"dataset_version": model.version.version, "split": "validation"}
    config = model.settings.engine.replaced(threads=model.settings.train.cpus_per_worker)
    export_model(model.model_dir, rows, model.settings.export, config, origin)
    engine = Engine(model.model_dir, config)
    engine.warm_up()
    texts = rows["text"].to_pylist()[:_LATENCY_TEXTS]
    medians = []
    for _ in range(_LATENCY_RUNS):
        seconds = []
        for text in texts:
            start = time.perf_counter()
            engine.probabilities([text])
            seconds.append(time.perf_counter() - start)
        medians.append(statistics.median(seconds))
    return 1000 * min(medians)


MEASURES: dict[str, Callable[[TrialModel], float]] = {
    "parameters": parameters,
    "ece": ece,
    "latency_ms": latency_ms,
}


def objective_values(
    best: Mapping[str, Any], model: TrialModel, names: Iterable[str]
) -> dict[str, float]:
    """Return the value of each objective, measured where training does not report it.

    Args:
        best: metrics of the epoch that training keeps.
        names: of the objectives.
    """
    return {n: float(best[n] if n in best else MEASURES[n](model)) for n in names}
