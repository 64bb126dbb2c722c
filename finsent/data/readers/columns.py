"""The table that every reader yields, and which columns of a file a reader reads for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# A record longer than a block cannot be parsed; far above any text that is worth classifying.
BLOCK_BYTES = 8 << 20
MAX_CHARACTERS = 4 * BLOCK_BYTES  # of a record of a format that is read record by record
_MAX_EXCERPT_CHARACTERS = 40  # of the value that leaves a row out

ROWS = pa.schema(
    [
        ("source", pa.int32()),  # position in the list of source files
        ("row", pa.int64()),  # number of the record in the file; a CSV's header is 1
        ("raw_text", pa.string()),
        ("raw_label", pa.string()),
        ("unit", pa.string()),  # value of the column that decides the split, else null
        ("fault", pa.string()),  # why the record could not be parsed, else null
    ]
)

CARRIED = "input:"  # prefix of the names of carried columns; no column of `ROWS` begins so
# Metadata of a carried column that holds JSON as the file writes it, e.g. "A-1" in quotes.
AS_JSON = {b"finsent": b"json"}

RowNumbers = Sequence[int] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """The columns of a file that are read."""

    text: str
    label: str | None  # None: the texts need no label
    unit: str | None  # None: the text itself decides the split
    last: str | None = None  # of a CSV: the column that shows a quote that is never closed
    all: tuple[str, ...] = ()  # of a CSV: its columns in order, where they are known
    conditions: tuple[tuple[str, tuple[str, ...]], ...] = ()  # column and the values that pass
    given: tuple[tuple[str, str | None], ...] = ()  # column and its one value, from the path
    carried: tuple[pa.Field, ...] = ()  # further columns, by their names in the file
    keeps_blank: bool = False  # a blank line or row is a record, except in JSON and PhraseBank
    keeps_cells: bool = False  # of a CSV: see `with_cells`

    @property
    def names(self) -> list[str]:
        """Return the requested columns: text, label, unit and those of the conditions."""
        requested = [name for name in (self.text, self.label, self.unit) if name is not None]
        return requested + [name for name, _ in self.conditions]

    @property
    def stored(self) -> list[str]:
        """Return the requested columns that are in the file itself, each once."""
        given = dict(self.given)
        return [name for name in dict.fromkeys(self.names) if name not in given]

    @property
    def carried_stored(self) -> list[str]:
        """Return the carried columns that are in the file itself."""
        given = dict(self.given)
        return [field.name for field in self.carried if field.name not in given]

    @property
    def all_stored(self) -> list[str]:
        """Return the columns of the file that are requested or carried, each once."""
        return list(dict.fromkeys([*self.stored, *self.carried_stored]))

    @property
    def schema(self) -> pa.Schema:
        """Return `ROWS`, then the carried columns under names that begin with `CARRIED`."""
        return pa.schema([*ROWS, *(f.with_name(CARRIED + f.name) for f in self.carried)])


def assemble(
    source: int,
    numbers: RowNumbers,
    values: Mapping[str, pa.Array],
    columns: Columns,
    faults: pa.Array | None = None,
    carried: Mapping[str, pa.Array] | None = None,
) -> pa.Table:
    """Return a table of schema `columns.schema` from the columns of a file.

    Args:
        source: position in the list of source files.
        numbers: of the records.
        values: by name, the columns `columns.stored`, as texts.
        faults: of the records, strings with nulls; None: no record has a fault.
        carried: by name, the columns `columns.carried_stored`; None: they are among the values.
    """
    row_count = len(numbers)
    constants = {
        name: pa.repeat(pa.scalar(value, pa.string()), row_count) for name, value in columns.given
    }
    carried = {**(values if carried is None else carried), **constants}
    values = {**values, **constants}
    for name, passing in columns.conditions:
        left_out = _left_out(values[name], name, passing)
        faults = left_out if faults is None else pc.coalesce(faults, left_out)
    label, unit = columns.label, columns.unit
    arrays = [
        pa.repeat(pa.scalar(source, pa.int32()), row_count),
        pa.array(numbers, pa.int64()),
        values[columns.text],
        None if label is None else values[label],
        None if unit is None else values[unit],
        faults,
        *(carried[field.name] for field in columns.carried),
    ]
    schema = columns.schema
    filled = [
        pa.nulls(row_count, field.type) if array is None else array
        for field, array in zip(schema, arrays, strict=True)
    ]
    return pa.table(filled, schema=schema)


def with_cells(table: pa.Table, cells: Sequence[pa.Array]) -> pa.Table:
    """Return records with a column `0`, `1`, ... for each cell of a CSV, by its position.

    Two columns of the file may have one name. A record that could not be parsed has nulls.
    """
    for position, column in enumerate(cells):
        table = table.append_column(str(position), column)
    return table


def _left_out(values: pa.Array, name: str, passing: tuple[str, ...]) -> pa.Array:
    """Return the reasons of rows that fail a condition; null for rows that pass."""
    spelling = pc.utf8_lower(pc.utf8_trim_whitespace(values))
    passes = pc.is_in(spelling, value_set=pa.array(passing, pa.string()))
    excerpt = pc.utf8_slice_codeunits(pc.fill_null(values, "missing"), 0, _MAX_EXCERPT_CHARACTERS)
    reason = pc.binary_join_element_wise(f"left_out: {name} is ", excerpt, "")
    return pc.if_else(passes, pa.scalar(None, pa.string()), reason)
