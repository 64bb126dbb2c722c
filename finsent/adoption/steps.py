"""Steps of an adoption: write and check the model, calibrate it, export it, measure it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from finsent.adoption.adopt import ForeignModel, adopt
from finsent.adoption.config import AdoptConfig
from finsent.adoption.fidelity import check_same
from finsent.adoption.labeled import LabeledRows
from finsent.data.config import SAMPLE, DataConfig, SourceConfig
from finsent.evaluation.calibration import calibrate, calibration_line, fitted_temperature
from finsent.evaluation.evaluate import evaluate, read_benchmark
from finsent.evaluation.held_out_rows import training_rows
from finsent.export.config import ExportConfig
from finsent.export.exporter import export_model
from finsent.files import staged_dir
from finsent.inference.engine import Engine
from finsent.inference.export_record import Export, ExportError
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.judging.model_evaluation import Evaluation
from finsent.judging.selection import source_names
from finsent.modeling.rows_origin import RowsOrigin
from finsent.modeling.trained_on import read_trained_on

log = logging.getLogger(__name__)

_PARITY_ROWS = 500  # of the sample corpus, where no labeled file is given


@dataclass(frozen=True)
class Adoption:
    """A foreign model that is being adopted, with the settings and rows of its steps."""

    foreign: ForeignModel
    setup: EvaluationSetup
    config: AdoptConfig
    export_config: ExportConfig
    labeled: LabeledRows | None  # None: `adopt.sources` is empty

    def write(self, model_dir: Path) -> float:
        """Write the model in our layout, and check that it answers as plain transformers does.

        Returns:
            The largest difference of any probability.

        Raises:
            InputError: the model is unusable, or answers otherwise.
        """
        with staged_dir(model_dir) as staged:  # no job may use a model that is not checked
            for note in adopt(self.foreign, staged):
                log.warning("adopt: %s", note)
            engine = self._engine(staged)
            difference = check_same(engine, self.foreign, self.config.max_difference)
        log.info("adopt: probabilities equal those of transformers within %.1e", difference)
        return difference

    def calibrate(self, model_dir: Path) -> float | None:
        """Fit temperature and abstention threshold on the first half of the labeled rows.

        Returns:
            The temperature; None: there are no labeled rows.
        """
        if self.labeled is None:
            log.info("adopt: not calibrated, as adopt.sources is empty")
            return None
        rows, absent = self.labeled.calibration, self.foreign.label_map.absent
        unanswerable = sum(label in absent for label in rows["label"].to_pylist())
        if unanswerable:
            log.warning(
                "adopt: %d of %d rows to calibrate on are %s, which the model never answers",
                unanswerable,
                len(rows),
                " or ".join(absent),
            )
        engine, wanted = self._engine(model_dir), self.setup.evaluate.wanted_accuracy
        calibration = calibrate(engine, rows, wanted, self._origin())
        log.info("%s", calibration_line(calibration))
        return fitted_temperature(calibration)

    def export(self, model_dir: Path) -> dict[str, Export]:
        """Export behind the parity gate, on the labeled rows or else on the sample corpus.

        Returns:
            The exports by name; empty: nothing was exported.
        """
        if not self.config.export:
            return {}
        if self.labeled is None:
            sample, cache = [SourceConfig(uri=SAMPLE)], self.setup.workspace.sources_dir
            rows = read_benchmark(sample, DataConfig(), cache).slice(0, _PARITY_ROWS)
            origin = RowsOrigin(dataset_version=None, split=None, sources=[SAMPLE])
        else:
            rows, origin = self.labeled.rows, self._origin()
        try:
            exports = export_model(model_dir, rows, self.export_config, self.setup.engine, origin)
        except ExportError as error:
            log.warning("adopt: not exported: %s", error)
            return {}
        return {export.name: export for export in exports}

    def measure(self, model_dir: Path) -> Evaluation | None:
        """Measure on the half that did not calibrate; None: there are no labeled rows."""
        if self.labeled is None:
            log.info("adopt: not measured; `python -m ray_jobs.evaluate` measures it")
            return None
        setup, sources = self.setup, self.config.sources
        figures = evaluate(
            self._engine(model_dir),
            self.labeled.measurement,
            None,
            training_rows(setup.workspace, read_trained_on(model_dir)),
            setup.evaluate,
            near=setup.data.near_duplicates,
        )
        metrics = figures.replaced(
            model_dir=str(model_dir),
            model_version=setup.registry.version_id(model_dir),
            dataset_version=None,
            split=None,
            sources=[source.uri for source in sources],
        )
        return Evaluation(metrics, ", ".join(source_names(sources)))

    def _origin(self) -> RowsOrigin:
        """Return the origin of the labeled rows."""
        names = source_names(self.config.sources)
        return {"dataset_version": None, "split": None, "sources": names}

    def _engine(self, model_dir: Path) -> Engine:
        return Engine(model_dir, self.setup.engine.replaced(backend="torch", precision="fp32"))
