"""Score a file's rows: blocks of records in, the same records with labels out. Knows no Ray."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

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
        ("text", pa.string()),  # as the file says it
        ("label", pa.string()),  # null: not scored, see fault
        ("score", pa.float32()),  # probability of the label
        *((f"probability_{label}", pa.float32()) for label in LABELS),
        ("abstained", pa.bool_()),  # the score is below the model's threshold
        ("truncated", pa.bool_()),  # a part of the text was left out
        ("model_version", pa.string()),
        ("calibration", pa.string()),  # for a domain; null: the model's own
        ("fault", pa.string()),  # why the row was not scored, else null
    ]
)


def scored_schema(rows: pa.Schema) -> pa.Schema:
    """Return the schema of scored rows: `SCORED` with the carried columns behind `row`.

    A carried column whose name is taken gets `input_` before it.

    Args:
        rows: schema of the rows, `finsent.data.readers.formats.ROWS` and carried columns.
    """
    carried = list(rows)[len(ROWS) :]
    names = free_names([field.name.removeprefix(CARRIED) for field in carried], SCORED.names)
    carried = [field.with_name(name) for field, name in zip(carried, names, strict=True)]
    return pa.schema([SCORED.field("row"), *carried, *list(SCORED)[1:]])


def free_names(names: Iterable[str], answers: Iterable[str]) -> list[str]:
    """Return the names of an input's columns next to those of its answers.

    A column whose name is taken gets `input_` before it.
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

    column: str  # a carried one, which has the tags
    domains: dict[str, DomainCalibration | None]  # None: the model's own

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
        """Score records.

        Args:
            rows: columns of `finsent.data.readers.formats.ROWS`, then carried ones.

        Returns:
            Schema `scored_schema`, a row for each of the records, in their order.
        """
        texts = rows["raw_text"].combine_chunks()
        faults = _faults(rows["fault"].combine_chunks(), texts)
        calibrations, of_row, faults = self._calibrations(rows, faults)
        good = np.flatnonzero(pc.is_null(faults).to_numpy(zero_copy_only=False))
        encoded = self.engine.encode(texts.take(pa.array(good)).to_pylist())
        truncated = np.array([one.truncated for one in encoded], bool)
        if self.engine.config.truncate == "error" and truncated.any():
            long = pa.array(good[truncated])
            marks = np.zeros(len(rows), bool)
            marks[long.to_numpy()] = True
            why = f"too_long: more than {self.engine.max_length} tokens"
            faults = pc.if_else(pa.array(marks), pa.scalar(why), faults)
            encoded = [one for one in encoded if not one.truncated]
            good, truncated = good[~truncated], truncated[~truncated]
        logits = self.engine.logits_of_rows([one.ids for one in encoded])
        found = self._answers(logits, truncated, calibrations, of_row[good])
        places = np.full(len(rows), -1)
        places[good] = np.arange(len(good))
        back = pa.array(places, mask=places < 0)
        versions = pa.repeat(pa.scalar(self.model_version), len(rows))
        return pa.table(
            [
                rows["row"],
                *rows.columns[len(ROWS) :],
                texts,
                *(column.take(back) for column in found[:-1]),
                versions,
                found[-1].take(back),
                faults,
            ],
            schema=scored_schema(rows.schema),
        )

    def _calibrations(
        self, rows: pa.Table, faults: pa.Array
    ) -> tuple[list[Calibration], npt.NDArray[np.int64], pa.Array]:
        """Return calibrations, which of them each row has, and the faults of rows with none."""
        own = self.engine.calibration
        if self.tagged is None:
            return [own], np.zeros(len(rows), np.int64), faults
        domains = {"": None, **self.tagged.domains}
        calibrations = [own if one is None else one.on(own) for one in domains.values()]
        place = {tag: i for i, tag in enumerate(domains)}
        tags = self.tagged.tags(rows)
        unknown = pa.array(
            [None if tag in place else f"unknown_source: {tag[:100]!r}" for tag in tags],
            pa.string(),
        )
        of_row = np.array([place.get(tag, 0) for tag in tags], np.int64)
        return calibrations, of_row, pc.coalesce(faults, unknown)

    def _answers(
        self,
        logits: Logits,
        truncated: npt.NDArray[np.bool_],
        calibrations: list[Calibration],
        of_row: npt.NDArray[np.int64],
    ) -> list[pa.Array]:
        """Return columns from `label` on, but for the version; the calibration is the last."""
        probabilities = np.zeros((len(logits), len(LABELS)), np.float32)
        least = np.full(len(logits), -1.0)
        for i, calibration in enumerate(calibrations):
            inside = of_row == i
            probabilities[inside] = self.engine.calibrated(logits[inside], calibration)
            if calibration.threshold is not None:
                least[inside] = calibration.threshold
        scores = probabilities.max(1, initial=0)
        used = pa.array([one.name for one in calibrations], pa.string())
        return [
            pa.array(LABELS, pa.string()).take(pa.array(probabilities.argmax(1))),
            pa.array(scores, pa.float32()),
            *(pa.array(probabilities[:, i], pa.float32()) for i in range(len(LABELS))),
            pa.array(scores < least),
            pa.array(truncated),
            used.take(pa.array(of_row)),
        ]


def _faults(faults: pa.Array, texts: pa.Array) -> pa.Array:
    """Why rows can't be scored, where nothing was wrong with the record itself."""
    blank = pc.equal(normalize(texts).text, "")  # what the model would read
    return pc.if_else(pc.and_(pc.is_null(faults), blank), pa.scalar("no_text"), faults)
