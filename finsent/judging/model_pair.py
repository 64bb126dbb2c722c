"""A pair of models that are compared on the same rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from finsent.errors import InputError
from finsent.evaluation.caveats import comparison_caveats
from finsent.evaluation.compare import (
    Comparison,
    compare,
    flipped,
    read_answers,
    with_seen,
    write_comparison,
)
from finsent.evaluation.comparison_record import ComparedModel, ComparisonRecord, ModelName
from finsent.evaluation.held_out_rows import (
    HeldOutRows,
    calibration_keys,
    find_held_out,
    training_keys,
    training_rows,
    validation_keys,
)
from finsent.evaluation.metrics import Answers
from finsent.evaluation.noninferiority import Allowance, judge
from finsent.evaluation.training_overlap import find_overlap
from finsent.inference.engine import Engine
from finsent.inference.truncation_record import TruncationRecord
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.judging.selection import Selection
from finsent.judgments import Figures, Judgment
from finsent.metrics_record import OverlapCounts
from finsent.modeling.trained_on import TrainedOn, read_trained_on
from finsent.registry.calibration_lookup import find_calibration
from finsent.registry.registry import Registry

log = logging.getLogger(__name__)

NAMES: tuple[ModelName, ModelName] = ("a", "b")


class NoRowsError(InputError):
    """A model was trained or validated on each row of a selection."""


class UnusableModelError(InputError):
    """A model cannot be loaded, or cannot answer."""

    def __init__(self, name: ModelName, reason: str) -> None:
        super().__init__(reason)
        self.name = name


@contextmanager
def _errors_of(name: ModelName) -> Iterator[None]:
    """Raise an error of the block as an error of a model."""
    try:
        yield
    except InputError as error:
        raise UnusableModelError(name, str(error)) from error


@dataclass(frozen=True)
class UsedRows:
    """Rows of a selection that the models have used, by model; None: not known."""

    held_out: HeldOutRows  # flags of the rows that neither model has used
    training: dict[ModelName, int | None]
    validation: dict[ModelName, int | None]


@dataclass(frozen=True)
class JudgedPair:
    """Model B compared with model A."""

    comparison: Comparison
    judgment: Judgment  # whether B may replace A
    used: UsedRows
    record: ComparisonRecord  # as `comparison.json` stores it


class ModelPair:
    """Two models, A and B: each is loaded once, for any number of comparisons. Needs no Ray."""

    def __init__(
        self, setup: EvaluationSetup, a_dir: Path, b_dir: Path, allowance: Allowance
    ) -> None:
        """Read what the models were trained on.

        Args:
            allowance: what B may lose when it replaces A.

        Raises:
            UnusableModelError: a model is damaged.
            InputError: a dataset version is damaged, or a model has no calibration of the name
                `evaluate.calibration`.
        """
        self._setup, self._allowance = setup, allowance
        self._folders: dict[ModelName, Path] = {"a": a_dir, "b": b_dir}
        self.trained_on: dict[ModelName, TrainedOn | None] = {}
        for name, folder in self._folders.items():
            with _errors_of(name):
                self.trained_on[name] = read_trained_on(folder)
        workspace, origins = setup.workspace, self.trained_on.values()
        self._training = [training_rows(workspace, trained_on) for trained_on in origins]
        self._validation = [validation_keys(workspace, trained_on) for trained_on in origins]
        calibration = setup.evaluate.calibration
        self._domains = {
            name: find_calibration(
                Registry(workspace.registry), folder, calibration, "evaluate.calibration"
            )
            for name, folder in self._folders.items()
        }
        self._engines: dict[ModelName, Engine] = {}

    def _engine(self, name: ModelName) -> Engine:
        if name not in self._engines:
            exact = self._setup.engine.exact()
            engine = Engine(self._folders[name], exact, domain=self._domains[name])
            self._engines[name] = engine
        return self._engines[name]

    def _answers(self, name: ModelName, rows: pa.Table) -> tuple[Answers, TruncationRecord]:
        with _errors_of(name):
            return read_answers(self._engine(name), rows)

    def compare(self, selection: Selection, out: Path) -> JudgedPair:
        """Compare B with A on rows that neither model has used, and write the comparison.

        Args:
            out: directory.

        Raises:
            NoRowsError: a model has used each row.
            UnusableModelError: a model cannot be loaded, or cannot answer.
        """
        used = self._find_used(selection)
        flags = used.held_out.flags
        rows, config = selection.rows.filter(pa.array(flags)), self._setup.evaluate
        # B first: where both are unusable, the gate reports B.
        all_b, truncation_b = self._answers("b", selection.rows)
        all_a, truncation_a = self._answers("a", selection.rows)
        a, b = all_a.where(flags), all_b.where(flags)
        compared = compare(a, b, config.bootstrap, config.seed)
        judgment = judge(a, b, compared.worse, self._allowance, config.bootstrap, config.seed)
        record = ComparisonRecord(
            rows=compared.rows,
            macro_over=compared.macro_over,
            a=self._compared_model("a", compared.a),
            b=self._compared_model("b", compared.b),
            difference=compared.difference,
            mcnemar=compared.mcnemar,
            flipped=compared.flipped,
            verdict=compared.verdict,
            judgment=judgment,
            overlap=self._overlap(rows, used),
            with_seen=None if flags.all() else with_seen(all_a, all_b),
            truncation={"a": truncation_a, "b": truncation_b},
            what=selection.description,
            calibration=config.calibration,
            dataset_version=selection.version.version if selection.version else None,
            seen_in_training=used.training,
            seen_in_validation=used.validation,
        )
        write_comparison(record, flipped(rows, a, b), out)
        log.info("%s", compared.line)
        for caveat in comparison_caveats(record):
            log.warning("%s", caveat)
        return JudgedPair(compared, judgment, used, record)

    def _compared_model(self, name: ModelName, figures: Figures) -> ComparedModel:
        return ComparedModel(figures.accuracy, figures.macro_f1, str(self._folders[name]))

    def _find_used(self, selection: Selection) -> UsedRows:
        """Find the rows that the models were trained, validated or calibrated on.

        Raises:
            NoRowsError: the models have used all rows.
        """
        config, validation = self._setup.evaluate, self._validation
        if config.split == "validation" and not config.sources:
            validation = [None, None]  # otherwise no row would remain
            log.warning(
                "compare: the validation split has chosen the epoch of its model, which makes the "
                "figures of that model too good"
            )
        domains = [domain for domain in self._domains.values() if domain is not None]
        held_out = find_held_out(
            selection.rows,
            [*map(training_keys, self._training), *validation, *map(calibration_keys, domains)],
        )
        trained, validated, calibrated = (
            held_out.counts[:2],
            held_out.counts[2:4],
            held_out.counts[4:],
        )
        if any(calibrated):
            log.info("compare: left out rows that a calibration was fitted on: %s", calibrated)
        if not held_out.flags.any():
            raise NoRowsError(
                f"compare: A or B was trained or validated on each of the {len(selection.rows)} "
                f"rows of {selection.description}. Set evaluate.sources or evaluate.dataset to "
                "other rows."
            )
        log.info(
            "compare: %s with %s on %d rows of %s (left out as trained on: %s by A, %s by B; as "
            "validated on: %s by A, %s by B)",
            self._folders["b"],
            self._folders["a"],
            held_out.flags.sum(),
            selection.description,
            *("unknown" if count is None else count for count in (*trained, *validated)),
        )
        return UsedRows(
            held_out,
            dict(zip(NAMES, trained, strict=True)),
            dict(zip(NAMES, validated, strict=True)),
        )

    def _overlap(self, rows: pa.Table, used: UsedRows) -> dict[ModelName, OverlapCounts]:
        """Return by model how many rows it was trained on, and how many near copies remain."""
        near = self._setup.data.near_duplicates
        return {
            name: find_overlap(rows, training, near).counts().replaced(rows=used.training[name])
            for name, training in zip(NAMES, self._training, strict=True)
        }
