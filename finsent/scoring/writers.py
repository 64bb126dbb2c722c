"""Write scored rows as Parquet, CSV or JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from finsent.data.readers.columns import AS_JSON
from finsent.data.readers.json_values import encodable
from finsent.scoring.formulas import quote_formula, quote_formulas


class Writer(Protocol):
    """A file that accepts tables of one schema."""

    def write_table(self, table: pa.Table) -> object:
        """Append rows."""

    def close(self) -> object:
        """Finish the file."""


def open_writer(path: Path, format: str, schema: pa.Schema) -> Writer:
    """Return a new file of a format: parquet, csv or jsonl.

    Args:
        schema: of the tables. A column with the metadata `AS_JSON` holds JSON. JSON Lines keep the
            JSON unchanged; the other formats store a plain value.
    """
    if format == "jsonl":
        return _JsonLines(path, schema)
    if format == "csv":
        return _Csv(path, schema)
    return _Plain(pq.ParquetWriter, path, schema, lambda _: False, compression="zstd")


class _Plain:
    """A writer of Arrow that writes some columns as text."""

    def __init__(
        self,
        writer_class: Any,
        path: Path,
        schema: pa.Schema,
        needs_text: Callable[[pa.DataType], bool],
        **options: Any,
    ) -> None:
        self._json = [i for i, field in enumerate(schema) if _is_json(field)]
        self._text = [i for i, field in enumerate(schema) if needs_text(field.type)]
        for i in (*self._json, *self._text):
            schema = schema.set(i, pa.field(schema.field(i).name, pa.string()))
        self._schema = schema
        self._writer = writer_class(path, schema, **options)

    def write_table(self, table: pa.Table) -> None:
        self._writer.write_table(pa.table(self.columns(table), schema=self._schema))

    def columns(self, table: pa.Table) -> list[Any]:
        """Return the columns as they are written."""
        columns = list(table.columns)
        for i in self._json:
            columns[i] = _texts(_value_of_json(value) for value in columns[i].to_pylist())
        for i in self._text:
            columns[i] = _texts(_as_text(value) for value in columns[i].to_pylist())
        return columns

    def close(self) -> None:
        self._writer.close()


class _Csv(_Plain):
    """A writer of CSV whose texts and header no spreadsheet runs as formulas."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        schema = pa.schema([field.with_name(quote_formula(field.name)) for field in schema])
        super().__init__(pyarrow.csv.CSVWriter, path, schema, _needs_text)

    def columns(self, table: pa.Table) -> list[Any]:
        return [
            quote_formulas(column) if pa.types.is_string(field.type) else column
            for column, field in zip(super().columns(table), self._schema, strict=True)
        ]


class _JsonLines:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._stream = path.open("wb")
        self._json = [field.name for field in schema if _is_json(field)]

    def write_table(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            for name in self._json:
                row[name] = None if row[name] is None else orjson.Fragment(row[name])
            self._stream.write(orjson.dumps(row, default=_plain_value) + b"\n")

    def close(self) -> None:
        self._stream.close()


def _is_json(field: pa.Field) -> bool:
    return (field.metadata or {}).items() >= AS_JSON.items()


def _needs_text(type: pa.DataType) -> bool:
    return bool(
        pa.types.is_nested(type)
        or pa.types.is_binary(type)
        or pa.types.is_large_binary(type)
        or pa.types.is_fixed_size_binary(type)
    )


def _value_of_json(value: str | None) -> str | None:
    """Return a plain value of JSON: a string without its quotes, None in place of null."""
    if value is None or value == "null":
        return None
    return json.loads(value) if value.startswith('"') else value


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, bytes):
        return None if value is None else str(_plain_value(value))
    return json.dumps(value, default=_plain_value, ensure_ascii=False)


def _texts(values: Any) -> pa.Array:
    return pa.array(map(encodable, values), pa.string())


def _plain_value(value: Any) -> Any:
    """Return a value that JSON has no type for as text, e.g. bytes as UTF-8, or a decimal."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
