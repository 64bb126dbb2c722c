"""What a trial does, in a process that can be killed: train, and measure the model."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.settings import Settings


class Training:
    """A Ray actor.

    Args:
        environment: variables, where they are not set.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        for name, value in environment.items():
            os.environ.setdefault(name, value)

    def run(
        self,
        settings: Settings,
        params: Mapping[str, Any],
        version_dir: Path,
        datasets: dict[str, Any],
        place: Path,
        modes: Mapping[str, str],
    ) -> tuple[dict[str, float], Path]:
        """Train, and measure what training does not report.

        Args:
            settings: the trial's.
            params: which of them are its own.
            version_dir: the dataset version, where it does not make its own.
            datasets: tokenized splits by name; none where it makes its own.
            place: the trial's directory.
            modes: by objective.

        Returns:
            Values by objective, of the epoch that training keeps, and the model's directory.
        """
        from finsent.modeling.backbone import resolve_backbone
        from finsent.training.frontends.check import check_trainer
        from finsent.training.ray_trainer import fit
        from finsent.training.task import make_task

        check_trainer(settings.train)
        version = _version(settings, params, version_dir, place)
        backbone = resolve_backbone(settings.model, settings.root / "backbones")
        task = make_task(settings.train, settings.model, backbone, version)
        trained = fit(task, version, place, datasets=datasets or None)
        made = Made(settings, trained.model_dir, version)
        return values_of(trained.best.model_dump(), made, modes), trained.model_dir


def _version(
    settings: Settings, params: Mapping[str, Any], version_dir: Path, place: Path
) -> DatasetVersion:
    if any(key.startswith("data.") for key in params):
        from finsent.data.ingest.ingest import find_existing, ingest
        from finsent.data.sources.files import find_sources

        files = find_sources(settings.data, settings.sources_dir)
        version = find_existing(settings.data, settings.datasets_dir, files)
        return version or ingest(settings.data, settings.datasets_dir, files, place)
    found = DatasetVersion.at(version_dir)
    if found is None:
        raise InputError(f"{str(version_dir)!r}: the dataset version is gone")
    return found


# --- further objectives -------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A trained model, and how."""

    settings: Settings
    model_dir: Path
    version: DatasetVersion


def parameters(made: Made) -> float:
    """Weights of the model."""
    from safetensors import safe_open

    with safe_open(made.model_dir / "model.safetensors", "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return float(sum(math.prod(shape) for shape in shapes))


def ece(made: Made) -> float:
    """Calibration error on the validation split, after temperature scaling there."""
    from finsent.evaluation.calibration import calibrate
    from finsent.inference.engine import Engine

    rows = made.version.read("validation", ["text", "label"])
    origin = {"dataset_version": made.version.version, "split": "validation"}
    engine = Engine(made.model_dir, made.settings.engine.exact())
    found = calibrate(engine, rows, made.settings.evaluate.wanted_accuracy, origin)
    return float(found["ece_after"])


def latency_ms(made: Made) -> float:
    """Median time of the engine for one text, on the exported model, in milliseconds.

    Each of up to 100 validation texts alone, three times; the least of the three medians, as other
    trials run beside it.
    """
    from finsent.export.exporter import export_model
    from finsent.inference.engine import Engine

    rows = made.version.read("validation", ["text", "label"])
    origin = {"dataset_version": made.version.version, "split": "validation"}
    config = made.settings.engine.replaced(threads=made.settings.train.cpus_per_worker)
    export_model(made.model_dir, rows, made.settings.export, config, origin)
    engine = Engine(made.model_dir, config)
    engine.warm_up()
    texts = rows["text"].to_pylist()[:100]
    medians = []
    for _ in range(3):
        taken = []
        for text in texts:
            begun = time.perf_counter()
            engine.probabilities([text])
            taken.append(time.perf_counter() - begun)
        medians.append(statistics.median(taken))
    return 1000 * min(medians)


MEASURES: dict[str, Callable[[Made], float]] = {
    "parameters": parameters,
    "ece": ece,
    "latency_ms": latency_ms,
}


def values_of(best: Mapping[str, Any], made: Made, names: Iterable[str]) -> dict[str, float]:
    """Return the value of each objective, measured where training does not report it.

    Args:
        best: metrics of the epoch that training keeps.
    """
    return {name: float(best[name] if name in best else MEASURES[name](made)) for name in names}
