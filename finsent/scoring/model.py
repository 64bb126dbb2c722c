"""The model of a scoring run, ready to be loaded in any process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from finsent.errors import InputError
from finsent.extras import is_installed
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.inference.export_record import read_exports
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.modeling.model_dir import fingerprint
from finsent.registry.calibration_lookup import find_calibration
from finsent.registry.registry import Registry
from finsent.scoring.config import PredictConfig
from finsent.scoring.score import Scorer, Tagged


@dataclass(frozen=True)
class ScoringModel:
    """The model of a run, and how it computes."""

    model_dir: Path
    version: str  # written into each row
    fingerprint: dict[str, str]  # of the model's files, which must stay
    config: EngineConfig
    domain: DomainCalibration | None = None  # follows the model's own calibration; None: none does
    tagged: Tagged | None = None  # calibrations by the tags of rows; None: `domain` is for all

    @classmethod
    def of(
        cls, model_dir: Path, registry: Registry, config: PredictConfig, engine: EngineConfig
    ) -> ScoringModel:
        """Return the model of a directory with the calibrations that the settings name.

        Raises:
            InputError: the model is incomplete, or lacks a calibration.
        """
        name, field = config.calibration, "predict.calibration"
        domain = find_calibration(registry, model_dir, name, field)
        version = model_dir.name if model_dir.parent.name == "versions" else "unpublished"
        tagged = None
        if config.source_column is not None:
            domains = {
                tag: find_calibration(registry, model_dir, name, "predict.calibrations")
                for tag, name in config.calibrations.items()
            }
            tagged = Tagged(config.source_column, domains)
        return cls(model_dir, version, fingerprint(model_dir), engine, domain, tagged)

    def identity(self) -> Mapping[str, object]:
        """Return all of the model that decides its answers."""
        return {
            **self.fingerprint,
            "calibration": self.domain and self.domain.id,
            "tagged": self.tagged and self.tagged.identity(),
        }

    def with_backend(self, backend: str) -> ScoringModel:
        """Return the model with settings that leave no choice but a backend.

        Args:
            backend: library and precision, e.g. onnxruntime-int8.
        """
        library, _, precision = backend.rpartition("-")
        return replace(self, config=self.config.replaced(backend=library, precision=precision))

    def is_available(self, backend: str) -> bool:
        """Return whether this machine has a backend that an earlier run used."""
        exports = read_exports(self.model_dir)
        names = {export.name for export in exports if is_installed(export.backend)}
        return backend.startswith("torch-") or backend in names

    def load(self) -> Scorer:
        """Load the model.

        Raises:
            InputError: the model is unusable, or has changed since the run began.
        """
        engine = Engine(self.model_dir, self.config, domain=self.domain)
        # An actor that Ray restarts during a run loads the files of that moment.
        if fingerprint(self.model_dir) != self.fingerprint:
            raise InputError(
                f"predict.model={str(self.model_dir)!r}: has changed since the run began. Run "
                "again when it is complete."
            )
        engine.warm_up()
        return Scorer(engine, self.version, self.tagged)
