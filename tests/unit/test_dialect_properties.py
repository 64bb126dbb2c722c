"""Random tables and texts in CSV are read completely or refused."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.data.config import SourceConfig
from finsent.errors import InputError
from tests.properties import examples
from tests.unit.csv_dialects import SWALLOWED, problem, read
from tests.unit.source_files import configured, write

SIGNS = st.sampled_from(list("ab é\"\\,;\t\n\r'5€ "))


CELLS = st.text(SIGNS, max_size=8)


@examples(150)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), max_size=12),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    delimiter=st.sampled_from([",", ";", "\t"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    escape=st.sampled_from([None, "\\"]),
    has_header=st.booleans(),
)
def test_any_table_comes_back_in_order_with_its_keys(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    quoting: Any,
    delimiter: str,
    end: str,
    encoding: str,
    escape: str | None,
    has_header: bool,
) -> None:
    sink = io.StringIO(newline="")
    table = [[f"k{n}", *row] for n, row in enumerate(rows)]
    if escape:  # as Spark writes: the escape stands before quotes and itself
        for line in [["key", "text", "more"]] * has_header + table:
            cells = [cell.replace("\\", "\\\\").replace('"', '\\"') for cell in line]
            sink.write(delimiter.join(f'"{cell}"' for cell in cells) + end)
    else:
        if re.search(r"[\r\n]", "".join(map("".join, rows))):
            quoting = csv.QUOTE_ALL  # Python quotes only the line end that it writes itself
        writer = csv.writer(sink, quoting=quoting, delimiter=delimiter, lineterminator=end)
        writer.writerows([["key", "text", "more"]] * has_header + table)
    path = write(tmp_path_factory.mktemp("any"), sink.getvalue().encode(encoding))
    names = {"text": "text", "label": "key"} if has_header else {"text": 2, "label": 1}
    if not (rows or has_header):
        assert "is empty" in problem(path, **names)
        return
    rows_read = read(
        path,
        **names,
        delimiter=delimiter,
        escape=escape,
        encoding=encoding,
        header="first" if has_header else "none",
    )
    first_row = 2 if has_header else 1
    for n, (row, (text, _)) in enumerate(zip(rows_read, rows, strict=True)):
        assert row.number == n + first_row
        if row.fault is None:
            assert (row.text, row.label) == (text, f"k{n}")
        else:
            assert row.fault == SWALLOWED


@examples(150)
@given(st.text(st.sampled_from(list('ab"\\,\n\r ')), max_size=60))
def test_any_text_is_read_or_refused_and_every_line_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, body: str
) -> None:
    path = write(tmp_path_factory.mktemp("any"), "text,label\n" + body)
    try:
        rows = sorted(read(path))
    except InputError as error:
        assert "is not closed" in str(error)
        return
    assert [row.number for row in rows] == list(range(2, len(rows) + 2))
    text = "".join(f"{row.text}{row.label or ''}" for row in rows)
    assert all(text.count(sign) >= body.count(sign) for sign in "ab")


PIECES = st.lists(st.text(SIGNS, max_size=8), max_size=6)


@examples(40)
@given(st.lists(st.tuples(st.sampled_from(["csv", "tsv", "jsonl", "json"]), PIECES), max_size=4))
def test_files_of_any_kind_and_order_keep_their_rows_apart(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, list[str]]]
) -> None:
    folder, uris, expected = tmp_path_factory.mktemp("any"), [], []
    for number, (suffix, texts) in enumerate([("csv", ["x"]), *files]):
        records = [{"key": f"{number}.{n}", "text": text} for n, text in enumerate(texts)]
        sink = io.StringIO(newline="")
        if suffix in ("csv", "tsv"):
            sign = "," if suffix == "csv" else "\t"
            writer = csv.writer(sink, quoting=csv.QUOTE_ALL, delimiter=sign)
            writer.writerows([["key", "text"], *(record.values() for record in records)])
        elif not records:
            continue
        else:
            sink.write("\n".join(map(json.dumps, records)))
        uris.append(str(write(folder, sink.getvalue(), f"{number}.{suffix}")))
        expected.append([(record["key"], record["text"]) for record in records])
    entries = [{"uri": uri, "text": "text", "label": "key"} for uri in uris]
    pairs = []
    for index, file in enumerate(configured(folder, *entries)):
        tables = list(file.rows(index))
        assert {row["source"] for table in tables for row in table.to_pylist()} <= {index}
        rows = [row for table in tables for row in table.to_pylist()]
        assert not [row["fault"] for row in rows if row["fault"] not in (None, SWALLOWED)]
        pairs.append([(row["raw_label"], row["raw_text"]) for row in rows])
    assert pairs == expected


@pytest.mark.parametrize(("key", "value"), [("delimiter", ";"), ("quote", "'"), ("escape", "\\")])
def test_a_text_file_with_a_key_for_csv_is_refused(tmp_path: Path, key: str, value: str) -> None:
    from finsent.data.config import DataConfig
    from finsent.data.sources.files import find_texts

    # A CSV by another name: its header and its other columns would be scored as texts.
    (tmp_path / "a.txt").write_text("Sentence;id\nProfit rose;1\n")
    source = SourceConfig.model_validate({"uri": str(tmp_path / "a.txt"), key: value})
    with pytest.raises(
        InputError, match=rf"^predict\.input: .*a\.txt' is text, which has no {key}"
    ):
        find_texts([source], DataConfig(), tmp_path, "predict.input")
