"""The labeled rows that an adopted model is calibrated and measured on."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.config import SourceConfig
from finsent.errors import InputError
from finsent.evaluation.calibration import MIN_ROWS
from finsent.evaluation.evaluate import read_benchmark
from finsent.judging.evaluation_setup import EvaluationSetup


@dataclass(frozen=True)
class LabeledRows:
    """Labeled rows in two halves, so that a model is not measured on the rows that fitted it."""

    rows: pa.Table
    calibration: pa.Table
    measurement: pa.Table

    @classmethod
    def split(cls, rows: pa.Table) -> LabeledRows:
        """Split rows by their keys, which are hashes of the texts."""
        is_first = pc.less(pc.utf8_slice_codeunits(rows["key"], 0, 1), "8")
        return cls(rows, rows.filter(is_first), rows.filter(pc.invert(is_first)))


def read_labeled_rows(setup: EvaluationSetup, sources: list[SourceConfig]) -> LabeledRows | None:
    """Read the rows of `adopt.sources`; None where the setting is empty.

    Raises:
        InputError: a file is unusable, or the rows are too few to calibrate and to measure on.
    """
    if not sources:
        return None
    rows = read_benchmark(sources, setup.data, setup.workspace.sources_dir, "adopt.sources")
    labeled = LabeledRows.split(rows)
    counts = len(labeled.calibration), len(labeled.measurement)
    if min(counts) < MIN_ROWS:
        raise InputError(
            f"adopt.sources={[source.uri for source in sources]}: {counts[0]} rows to calibrate "
            f"on and {counts[1]} to measure on are too few; {MIN_ROWS} of each are needed. "
            "Add labeled rows, or leave adopt.sources empty."
        )
    return labeled
