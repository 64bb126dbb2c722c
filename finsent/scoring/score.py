"""Score tables of a file's rows: the same rows come out with labels. Needs no Ray."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.readers.columns import AS_JSON, CARRIED, ROWS
from finsent.inference.backends import Logits
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.modeling.calibration import Calibration
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.normalize import normalize

SCORED = pa.schema(
    [
        ("row", pa.int64()),  # number of the record in its file; a CSV's header is 1
        ("text", pa.string()),  # as the file has it
        ("label", pa.string()),  # null: not scored, see fault
        ("score", pa.float32()),  # probability of the label
        *((f"probability_{label}", pa.float32()) for label in LABELS),
        ("abstained", pa.bool_()),  # the score is below the model's threshold
        ("truncated", pa.bool_()),  # the text was cut
        ("model_version", pa.string()),
        ("calibration", pa.string()),  # for a domain; null: the model's own
        ("fault", pa.string()),  # why the row was not scored, else null
    ]
)


def scored_schema(rows: pa.Schema) -> pa.Schema:
    """Return the schema of scored rows: `SCORED` with the carried columns behind `row`.

    A carried column whose name is taken gets the prefix `input_`.

    Args:
        rows: schema of the rows: `finsent.data.readers.formats.ROWS`, then carried columns.
    """
    carried = list(rows)[len(ROWS) :]
    names = free_names([field.name.removeprefix(CARRIED) for field in carried], SCORED.names)
    carried = [field.with_name(name) for field, name in zip(carried, names, strict=True)]
    return pa.schema([SCORED.field("row"), *carried, *list(SCORED)[1:]])


def free_names(names: Iterable[str], answers: Iterable[str]) -> list[str]:
    """Return the names of an input's columns next to those of its answers.

    A name that is taken gets the prefix `input_`.
    """
    taken, free = set(answers), []
    for name in names:
        while name in taken:
            name = f"input_{name}"
        taken.add(name)
        free.append(name)
    return free


@dataclass(frozen=True)
class Tagged:
    """Calibrations by the tag of a row's source."""

    column: str  # the carried column that has the tags
    domains: dict[str, DomainCalibration | None]  # None: the model's own

    def identity(self) -> list[Any]:
        """Return the column, and the id of each tag's calibration; None: the model's own."""
        ids = {tag: domain and domain.id for tag, domain in self.domains.items()}
        return [self.column, ids]

    def tags(self, rows: pa.Table) -> list[str]:
        """Return the tag of each row; empty where it has none."""
        field = rows.schema.field(f"{CARRIED}{self.column}")
        values = rows[field.name].to_pylist()
        if (field.metadata or {}).items() >= AS_JSON.items():
            values = [None if value is None else json.loads(value) for value in values]
        return ["" if value is None else str(value).strip() for value in values]


@dataclass(frozen=True)
class Scorer:
    """An engine that scores tables."""

    engine: Engine
    model_version: str  # written into each row
    tagged: Tagged | None = None  # None: the engine's calibration is for all rows

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Score rows.

        Args:
            rows: columns of `finsent.data.readers.formats.ROWS`, then carried columns.

        Returns:
            One row per row, in their order, of the schema `scored_schema`.
        """
        texts = rows["raw_text"].combine_chunks()
        faults = _faults(rows["fault"].combine_chunks(), texts)
        calibrations, calibration_ids, faults = self._calibrations(rows, faults)
        scorable = np.flatnonzero(pc.is_null(faults).to_numpy(zero_copy_only=False))
        encoded = self.engine.encode(texts.take(pa.array(scorable)).to_pylist())
        truncated = np.array([text.truncated for text in encoded], bool)
        if self.engine.config.truncate == "error" and truncated.any():
            is_too_long = np.zeros(len(rows), bool)
            is_too_long[scorable[truncated]] = True
            fault = f"too_long: more than {self.engine.max_length} tokens"
            faults = pc.if_else(pa.array(is_too_long), pa.scalar(fault), faults)
            encoded = [text for text in encoded if not text.truncated]
            scorable, truncated = scorable[~truncated], truncated[~truncated]
        logits = self.engine.logits_of_rows([text.ids for text in encoded])
        answers = self._answers(logits, truncated, calibrations, calibration_ids[scorable])
        answer_ids = np.full(len(rows), -1)
        answer_ids[scorable] = np.arange(len(scorable))
        answer_of_row = pa.array(answer_ids, mask=answer_ids < 0)
        versions = pa.repeat(pa.scalar(self.model_version), len(rows))
        return pa.table(
            [
                rows["row"],
                *rows.columns[len(ROWS) :],
                texts,
                *(column.take(answer_of_row) for column in answers[:-1]),
                versions,
                answers[-1].take(answer_of_row),
                faults,
            ],
            schema=scored_schema(rows.schema),
        )

    def _calibrations(
        self, rows: pa.Table, faults: pa.Array
    ) -> tuple[list[Calibration], npt.NDArray[np.int64], pa.Array]:
        """Return calibrations, the index of each row's calibration, and all faults.

        A row whose tag is unknown gets a fault.
        """
        own = self.engine.calibration
        if self.tagged is None:
            return [own], np.zeros(len(rows), np.int64), faults
        domains = {"": None, **self.tagged.domains}
        calibrations = [own if domain is None else domain.on(own) for domain in domains.values()]
        ids = {tag: i for i, tag in enumerate(domains)}
        tags = self.tagged.tags(rows)
        unknown = pa.array(
            [None if tag in ids else f"unknown_source: {tag[:100]!r}" for tag in tags],
            pa.string(),
        )
        calibration_ids = np.array([ids.get(tag, 0) for tag in tags], np.int64)
        return calibrations, calibration_ids, pc.coalesce(faults, unknown)

    def _answers(
        self,
        logits: Logits,
        truncated: npt.NDArray[np.bool_],
        calibrations: list[Calibration],
        calibration_ids: npt.NDArray[np.int64],
    ) -> list[pa.Array]:
        """Return the columns from `label` on without the version; the calibration is the last."""
        probabilities = np.zeros((len(logits), len(LABELS)), np.float32)
        thresholds = np.full(len(logits), -1.0)
        for i, calibration in enumerate(calibrations):
            is_calibrated = calibration_ids == i
            probabilities[is_calibrated] = self.engine.calibrated(
                logits[is_calibrated], calibration
            )
            if calibration.threshold is not None:
                thresholds[is_calibrated] = calibration.threshold
        scores = probabilities.max(1, initial=0)
        names = pa.array([calibration.name for calibration in calibrations], pa.string())
        return [
            pa.array(LABELS, pa.string()).take(pa.array(probabilities.argmax(1))),
            pa.array(scores, pa.float32()),
            *(pa.array(probabilities[:, i], pa.float32()) for i in range(len(LABELS))),
            pa.array(scores < thresholds),
            pa.array(truncated),
            names.take(pa.array(calibration_ids)),
        ]


def _faults(faults: pa.Array, texts: pa.Array) -> pa.Array:
    """Return the faults; a row without a fault gets one if normalization leaves no text."""
    is_blank = pc.equal(normalize(texts).text, "")
    return pc.if_else(pc.and_(pc.is_null(faults), is_blank), pa.scalar("no_text"), faults)
