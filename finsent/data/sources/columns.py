"""The table that every reader yields, and which columns of a file it reads for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# A record longer than a block cannot be parsed; far above any text that is worth classifying.
BLOCK_BYTES = 8 << 20
MAX_CHARACTERS = 4 * BLOCK_BYTES  # of a record of a format that is read record by record

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

CARRIED = "input:"  # before the name of a carried column; no column of `ROWS` begins so
# Metadata of a carried column that holds JSON as the file writes it, e.g. "A-1" in quotes.
AS_JSON = {b"finsent": b"json"}


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are read."""

    text: str
    label: str | None  # None: the texts need no label
    unit: str | None  # None: the text itself decides the split
    last: str | None = None  # of a CSV: where a quote that never closes shows
    all: tuple[str, ...] = ()  # of a CSV: its columns in order, where they are known
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()  # rows with other values are left out
    given: tuple[tuple[str, str | None], ...] = ()  # columns whose one value the path has
    carried: tuple[pa.Field, ...] = ()  # further columns, by their names in the file
    keeps_blank: bool = False  # a blank line or row is a record, but for JSON and PhraseBank
    keeps_cells: bool = False  # of a CSV: see `with_cells`

    @property
    def names(self) -> list[str]:
        """Those that are asked for."""
        asked = [name for name in (self.text, self.label, self.unit) if name is not None]
        return asked + [name for name, _ in self.where]

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
        """`ROWS`, then the carried columns under names that begin with `CARRIED`."""
        return pa.schema([*ROWS, *(f.with_name(CARRIED + f.name) for f in self.carried)])


def assemble(
    source: int,
    numbers: Any,
    values: dict[str, Any],
    columns: Columns,
    faults: Any = None,
    carried: dict[str, Any] | None = None,
) -> pa.Table:
    """Return a table of schema `columns.schema` from the columns of a file.

    Args:
        values: by name, the columns `columns.stored`, as texts.
        faults: of the rows, strings with nulls; None: there are none.
        carried: by name, the columns `columns.carried_stored`; None: they are among the values.
    """
    count = len(numbers)
    constants = {
        name: pa.repeat(pa.scalar(value, pa.string()), count) for name, value in columns.given
    }
    carried = {**(values if carried is None else carried), **constants}
    values = {**values, **constants}
    for name, wanted in columns.where:
        left_out = _left_out(values[name], name, wanted)
        faults = left_out if faults is None else pc.coalesce(faults, left_out)
    label, unit = columns.label, columns.unit
    given = [
        pa.repeat(pa.scalar(source, pa.int32()), count),
        pa.array(numbers, pa.int64()),
        values[columns.text],
        None if label is None else values[label],
        None if unit is None else values[unit],
        faults,
        *(carried[field.name] for field in columns.carried),
    ]
    schema = columns.schema
    filled = [
        pa.nulls(count, field.type) if column is None else column
        for field, column in zip(schema, given, strict=True)
    ]
    return pa.table(filled, schema=schema)


def with_cells(table: pa.Table, cells: list[Any]) -> pa.Table:
    """Return records with a column `0`, `1`, ... for each cell of a CSV, by its position.

    Two columns of the file may have one name. A record that could not be parsed has nulls.
    """
    for place, column in enumerate(cells):
        table = table.append_column(str(place), column)
    return table


def _left_out(values: Any, name: str, wanted: tuple[str, ...]) -> Any:
    spelling = pc.utf8_lower(pc.utf8_trim_whitespace(values))
    stays = pc.is_in(spelling, value_set=pa.array(wanted, pa.string()))
    shown = pc.utf8_slice_codeunits(pc.fill_null(values, "missing"), 0, 40)
    reason = pc.binary_join_element_wise(f"left_out: {name} is ", shown, "")
    return pc.if_else(stays, pa.scalar(None, pa.string()), reason)
