"""Score a file's rows: blocks of records in, the same records with labels out. Knows no Ray."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.formats import CARRIED, ROWS
from finsent.data.normalise import normalise
from finsent.inference.engine import Engine
from finsent.labels import LABELS

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
        rows: schema of the rows, `finsent.data.formats.ROWS` and carried columns.
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
class Scorer:
    """An engine that scores tables."""

    engine: Engine
    model_version: str  # written into each row

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Score records.

        Args:
            rows: columns of `finsent.data.formats.ROWS`, then carried ones.

        Returns:
            Schema `scored_schema`, a row for each of the records, in their order.
        """
        texts = rows["raw_text"].combine_chunks()
        faults = _faults(rows["fault"].combine_chunks(), texts)
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
        probabilities = self.engine.calibrated(self.engine.logits_of([one.ids for one in encoded]))
        found = _answers(probabilities, truncated, self.engine.threshold)
        places = np.full(len(rows), -1)
        places[good] = np.arange(len(good))
        back = pa.array(places, mask=places < 0)
        versions = pa.repeat(pa.scalar(self.model_version), len(rows))
        name = pa.scalar(self.engine.calibration.name, pa.string())
        return pa.table(
            [
                rows["row"],
                *rows.columns[len(ROWS) :],
                texts,
                *(column.take(back) for column in found),
                versions,
                pa.repeat(name, len(rows)),
                faults,
            ],
            schema=scored_schema(rows.schema),
        )


def _faults(faults: pa.Array, texts: pa.Array) -> pa.Array:
    """Why rows can't be scored, where nothing was wrong with the record itself."""
    blank = pc.equal(normalise(texts).text, "")  # what the model would read
    return pc.if_else(pc.and_(pc.is_null(faults), blank), pa.scalar("no_text"), faults)


def _answers(
    probabilities: np.ndarray[Any, np.dtype[np.float32]],
    truncated: np.ndarray[Any, np.dtype[np.bool_]],
    threshold: float | None,
) -> list[pa.Array]:
    scores = probabilities.max(1, initial=0)
    names = pa.array(LABELS, pa.string())
    least = -1.0 if threshold is None else threshold
    return [
        names.take(pa.array(probabilities.argmax(1))),
        pa.array(scores, pa.float32()),
        *(pa.array(probabilities[:, i], pa.float32()) for i in range(len(LABELS))),
        pa.array(scores < least),
        pa.array(truncated),
    ]
