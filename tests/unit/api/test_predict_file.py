"""Files over HTTP: delimiters, encodings, columns, formats and refused files."""

from __future__ import annotations

import asyncio
import csv
import io
import json

import httpx
import pytest
from starlette.testclient import TestClient

from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.registry.registry import Registry
from serve_app.config import LimitsConfig
from tests.unit.api.apps import in_loop, make_app, problem
from tests.unit.models import (
    TEXTS,
)

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


def test_csv_comes_back_with_answers(client: TestClient, engine: Engine) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "Headline", "date"])
    texts = [f"{TEXTS[i % 4]} {i}" for i in range(700)]
    texts[5], texts[6] = "", 'He said "up, 5 %"\nand left'
    writer.writerows([i, text, "2024"] for i, text in enumerate(texts))
    response = client.post(
        "/predict/file", content=out.getvalue().encode(), headers={"content-type": "text/csv"}
    )
    assert response.headers["content-type"].startswith("text/csv")
    rows = [*csv.DictReader(io.StringIO(response.text, newline=""))]
    assert [row["id"] for row in rows] == [str(i) for i in range(700)]
    assert rows[6]["Headline"] == texts[6]
    assert rows[5]["error"].startswith("invalid_text")
    assert rows[5]["label"] == ""
    expected = engine.classify([texts[i] for i in range(700) if i != 5])
    assert [row["label"] for i, row in enumerate(rows) if i != 5] == [e.label for e in expected]
    shares = [float(rows[0][name]) for name in LABELS]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    polarity = float(rows[0]["positive"]) - float(rows[0]["negative"])
    assert float(rows[0]["polarity"]) == pytest.approx(polarity, abs=2e-6)


def test_rows_that_cannot_be_used_say_so_and_blank_ones_stay(client: TestClient) -> None:
    lines = [
        "id,text,note",
        "1,Profit rose.,a",
        "",
        "2,Sales fell.,b,c,d",
        "3,Flat.",
        "4,,e",
        "5,Loss widened.,f",
        "",
        "",
    ]
    body = "\n".join(lines).encode()
    response = client.post("/predict/file", content=body, headers={"content-type": "text/csv"})
    rows = [*csv.DictReader(io.StringIO(response.text, newline=""))]
    assert [(row["id"], row["text"], row["note"]) for row in rows] == [
        ("1", "Profit rose.", "a"),
        ("", "", ""),
        ("", "2,Sales fell.,b,c,d", ""),
        ("", "3,Flat.", ""),
        ("4", "", "e"),
        ("5", "Loss widened.", "f"),
    ]
    blank = "invalid_text: the text is blank. Send a text with words."
    assert [row["error"] for row in rows] == [
        "",
        blank,
        "invalid_request: malformed_row: 5 fields, not 3 (record 4)",
        "invalid_request: malformed_row: 2 fields, not 3 (record 5)",
        blank,
        "",
    ]
    assert [bool(row["label"]) for row in rows] == [not row["error"] for row in rows]


def test_a_file_keeps_its_delimiter_and_comes_back_in_utf8(client: TestClient) -> None:
    body = "id;text\r\n1;Umsatz fiel, auch in München um 5 €\r\n".encode("cp1252")
    response = client.post("/predict/file", content=body, headers={"content-type": "text/csv"})
    [row] = csv.DictReader(io.StringIO(response.text, newline=""), delimiter=";")
    assert (row["id"], row["text"]) == ("1", "Umsatz fiel, auch in München um 5 €")
    assert row["label"] in LABELS
    assert (row["abstained"], row["truncated"]) == ("false", "false")


@pytest.mark.parametrize("kind", ["text/csv", "text/tab-separated-values"])
def test_a_table_with_tabs_comes_back_as_one(client: TestClient, kind: str) -> None:
    body = b"id\ttext\n1\tProfit, net, rose.\n"
    response = client.post("/predict/file", content=body, headers={"content-type": kind})
    assert response.headers["content-type"] == "text/tab-separated-values; charset=utf-8"
    [row] = csv.DictReader(io.StringIO(response.text, newline=""), delimiter="\t")
    assert (row["id"], row["text"]) == ("1", "Profit, net, rose.")


def test_columns_of_a_labeled_file_keep_other_names_than_those_of_the_answers(
    client: TestClient,
) -> None:
    body = b"label,text,score,input_score,id,id\nup,Profit rose.,0.9,b,1,2\n"
    response = client.post("/predict/file", content=body, headers={"content-type": "text/csv"})
    header, row = csv.reader(io.StringIO(response.text, newline=""))
    assert len({*header}) == len(header)
    assert header[:6] == [
        "input_label",
        "text",
        "input_score",
        "input_input_score",
        "id",
        "input_id",
    ]
    assert row[:6] == ["up", "Profit rose.", "0.9", "b", "1", "2"]
    assert row[header.index("label")] in LABELS


def test_a_file_may_be_answered_in_json_lines(client: TestClient, engine: Engine) -> None:
    long = "Profit rose. " * 60
    response = client.post(
        "/predict/file?format=text",
        content=f"Sales fell.\n\n{long}\n".encode(),
        headers={"content-type": "text/plain", "accept": "application/x-ndjson"},
    )
    assert response.headers["content-type"].startswith("application/x-ndjson")
    head, *rows = map(json.loads, response.text.splitlines())
    assert head == {
        "header": ["text"],
        "column": 0,
        "rows": 3,
        "delimiter": ",",
        "encoding": "utf-8",
    }
    assert [row["cells"] for row in rows] == [["Sales fell."], [""], [long.strip() + " "]]
    first, blank, cut = (row["answer"] for row in rows)
    assert first["label"] == engine.classify(["Sales fell."])[0].label
    assert blank["code"] == "invalid_text"
    assert (first["truncated"], cut["truncated"]) == (False, True)


@pytest.mark.parametrize(
    ("body", "kind", "query", "code"),
    [
        (b"a,b\n1,2\n", "text/csv", "", "unknown_column"),
        (b"a,b\n1,2\n", "text/csv", "?column=c", "unknown_column"),
        (b"", "text/csv", "", "invalid_request"),
        (b'text\n"Profit rose.\nSales fell.\n', "text/csv", "", "invalid_request"),
        (b"text\na\n", "text/csv", "?colum=text", "invalid_request"),
        (b"text\na\n", "text/csv", "?format=xlsx", "invalid_request"),
        (b"text\na\n", "text/csv", "?delimiter=ab", "invalid_request"),
        (b"a\n", "text/csv", "?delimiter=;&format=text", "invalid_request"),
        (b"text\na\n", "text/csv", "?encoding=none", "invalid_request"),
        (b"text\n\xff\xfe\n", "text/csv", "?encoding=utf-8", "unsupported_media_type"),
        (b"PK\x03\x04" + bytes(500), "text/csv", "", "unsupported_media_type"),
        (b"{}", "application/json", "", "unsupported_media_type"),
        (b"text\na\n", "text/csv; charset=none", "", "unsupported_media_type"),
        (b"text\n\xff\n", "text/csv; charset=utf-8", "", "unsupported_media_type"),
        (b"text\na\n", "text/csv; charset=cp1252", "?encoding=utf-8", "invalid_request"),
        (b"a,b\n1,2\n", "text/csv", "?column=a&column=b", "invalid_request"),
    ],
)
def test_unreadable_files_are_refused(
    client: TestClient, body: bytes, kind: str, query: str, code: str
) -> None:
    response = client.post(f"/predict/file{query}", content=body, headers={"content-type": kind})
    problem(response, code)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (
            "?delimiter=;&format=text",
            "delimiter=';' is for CSV, and format is 'text'. Leave one of them out.",
        ),
        ("?column=a&column=b", "column: several values, 'a', 'b'. Write one value."),
    ],
)
def test_wrong_parameters_are_named_once(client: TestClient, query: str, detail: str) -> None:
    response = client.post(f"/predict/file{query}", content=b"a,b\n1,2\n")
    assert problem(response, "invalid_request")["detail"] == detail


@pytest.mark.parametrize("query", ["", "?encoding=cp1250", "?encoding=auto"])
def test_the_charset_of_a_file_is_that_of_its_content_type(client: TestClient, query: str) -> None:
    body = "text\nZłoty i złote zyski spółek".encode("cp1250")
    response = client.post(
        f"/predict/file{query}",
        content=body,
        headers={
            "content-type": 'text/csv; charset="windows-1250"',
            "accept": "application/x-ndjson",
        },
    )
    head, row = map(json.loads, response.text.splitlines())
    if "auto" not in query:
        assert (head["encoding"], row["cells"]) == ("cp1250", ["Złoty i złote zyski spółek"])


def test_formulas_do_not_come_back_as_formulas(client: TestClient) -> None:
    body = (
        b"=cmd(),text,change\n=1+1,@SUM(A1),-2.5%\n-1+cmd,\tA1,+3\n-1.5e-3,+A1,+49 (0) 170\n"
        b"+1-2,-1e,1.5E+10\n"
    )
    response = client.post("/predict/file", content=body, headers={"content-type": "text/csv"})
    header, *rows = csv.reader(io.StringIO(response.text, newline=""))
    assert header[0] == "'=cmd()"
    assert [row[:3] for row in rows] == [
        ["'=1+1", "'@SUM(A1)", "-2.5%"],
        ["'-1+cmd", "'\tA1", "+3"],
        ["-1.5e-3", "'+A1", "+49 (0) 170"],
        ["'+1-2", "'-1e", "1.5E+10"],
    ]


def test_no_more_files_than_allowed_are_scored_at_a_time(registry: Registry) -> None:
    app = make_app(registry, limits=LimitsConfig(files=2))
    body = ("text\n" + "Profit rose.\n" * 300).encode()

    async def test(client: httpx.AsyncClient) -> list[httpx.Response]:
        uploads = (client.post("/predict/file", content=body) for _ in range(5))
        result = await asyncio.gather(*uploads)
        wrong = await client.post("/predict/file", content=b"")
        again = [await client.post("/predict/file", content=body) for _ in range(3)]
        return [*result, wrong, *again]  # what has ended, well or not, makes room

    *first, wrong, a, b, c = in_loop(app, test)
    assert sorted(item.status_code for item in first) == [200, 200, 429, 429, 429]
    refused = next(item for item in first if item.status_code == 429)
    assert "serve.limits.files" in problem(refused, "overloaded")["detail"]
    assert [item.status_code for item in (wrong, a, b, c)] == [422, 200, 200, 200]
