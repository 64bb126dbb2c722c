"""The HTTP API without a server: answers, limits, problems, keys, deadlines."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import json
import logging
import random
import re
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from finsent.config import load
from finsent.errors import ConfigError, InputError
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.registry.registry import Registry
from finsent.registry.version_manifest import CARD
from ray_jobs._settings import JobSettings
from serve_app import auth
from serve_app.auth import Keys, new_key, read_keys
from serve_app.config import LimitsConfig, ServeConfig
from serve_app.http.app import build_app
from serve_app.http.pages import pages
from serve_app.problems import CODES
from serve_app.sender import Sender
from serve_app.service.explain import explain
from serve_app.service.model import Model
from serve_app.service.service import Service
from tests.properties import examples
from tests.unit.models import (
    MAX_LENGTH,
    METRICS,
    TEXTS,
    publish_domain,
    published,
    saved_model,
)

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]

ENGINE = EngineConfig(precision="fp32", threads=2)


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Two versions; the champion is the first. Exported: ONNX Runtime loads in no time."""
    folder = tmp_path_factory.mktemp("served")
    return published(tiny, folder, ENGINE, ("champion", "challenger"))


@pytest.fixture(scope="module")
def engine(registry: Registry) -> Engine:
    return Engine(registry.get("champion").path, ENGINE)


def make_app(registry: Registry, **config: Any) -> Any:
    config = {"watch_seconds": 0, **config}
    service = Service(registry.root, ServeConfig(**config), ENGINE)
    asyncio.run(service.models.follow())
    return build_app(service, Keys(service.config.keys_file))


@pytest.fixture(scope="module")
def client(registry: Registry) -> Iterator[TestClient]:
    with TestClient(make_app(registry)) as client:
        yield client


@pytest.fixture
def serving(registry: Registry) -> Iterator[Callable[..., TestClient]]:
    """Return clients of services with other settings."""
    opened = []

    def make(**config: Any) -> TestClient:
        client = TestClient(make_app(registry, **config))
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


def problem(response: Any, code: str) -> dict[str, Any]:
    """Check that an answer is a problem of this code, and return it."""
    assert response.status_code == CODES[code][0], response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["code"] == code, body
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return body


def post(client: TestClient, body: Any, path: str = "/predict", **headers: str) -> Any:
    return client.post(
        path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


# --- answers --------------------------------------------------------------------------------------


def test_a_text_gets_the_answer_of_the_engine(
    client: TestClient, engine: Engine, registry: Registry
) -> None:
    for text, expected in zip(TEXTS, engine.classify(TEXTS), strict=True):
        response = post(client, {"text": text})
        body = response.json()
        assert response.status_code == 200
        assert body.keys() == {
            "label",
            "score",
            "probabilities",
            "polarity",
            "model_version",
            "calibration",
            "abstained",
            "truncated",
            "request_id",
        }
        assert body["label"] == expected.label
        assert body["score"] == pytest.approx(expected.score, abs=1e-5)
        assert body["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
        shares = expected.probabilities
        assert body["polarity"] == pytest.approx(shares["positive"] - shares["negative"], abs=1e-5)
        assert body["model_version"] == registry.aliases()["champion"]
        assert body["truncated"] == engine.encode([text])[0].truncated
        for name in ("x-queue-time", "x-inference-time"):
            assert float(response.headers[name]) >= 0
        assert response.headers["x-batch-size"] == "1"
        assert response.headers["x-request-id"] == body["request_id"]


def test_a_list_is_answered_in_order_with_errors_in_their_places(
    client: TestClient, engine: Engine
) -> None:
    texts = [*TEXTS, 3, "", None, "x" * 30_000, " \n", ["a"], "Profit rose."]
    body = post(client, {"texts": texts}).json()["predictions"]
    assert len(body) == len(texts)
    codes = [item.get("code") for item in body[len(TEXTS) :]]
    assert codes == ["invalid_text"] * 3 + ["text_too_long"] + ["invalid_text"] * 2 + [None]
    labels = [item["label"] for item in [*body[: len(TEXTS)], body[-1]]]
    assert labels == [item.label for item in engine.classify([*TEXTS, "Profit rose."])]


def test_empty_list_and_a_list_of_errors_are_answered(client: TestClient) -> None:
    assert post(client, {"texts": []}).json()["predictions"] == []
    assert [item["code"] for item in post(client, {"texts": [1, ""]}).json()["predictions"]] == [
        "invalid_text",
        "invalid_text",
    ]


def test_logits_and_truncation_on_request(client: TestClient, engine: Engine) -> None:
    long = "profit rose " * 100 + "loss fell " * 100
    raw = post(client, {"text": TEXTS[0], "raw_scores": True}).json()["raw_scores"]
    assert [*raw.values()] == pytest.approx(engine.logits([TEXTS[0]])[0].tolist(), abs=1e-4)
    right, left = (
        post(client, {"text": long, "truncate": side}).json() for side in ("right", "left")
    )
    assert right["truncated"]
    assert left["truncated"]
    assert right["probabilities"] != left["probabilities"]
    refusal = problem(post(client, {"text": long, "truncate": "error"}), "text_too_long")
    assert str(MAX_LENGTH) in refusal["detail"]
    listed = post(client, {"texts": [long, "Up"], "truncate": "error"}).json()["predictions"]
    assert listed[0]["code"] == "text_too_long"
    assert listed[1]["label"] in LABELS


def test_clients_of_text_embeddings_inference_are_understood(
    client: TestClient, engine: Engine
) -> None:
    single = post(client, {"inputs": TEXTS[0]}).json()
    assert [entry.keys() for entry in single] == [{"label", "score"}] * 3
    scores = [entry["score"] for entry in single]
    assert scores == sorted(scores, reverse=True)
    batch = post(client, {"inputs": [[TEXTS[0]], [TEXTS[1]]]}).json()
    assert [entry["label"] for entry in batch[0]] == [entry["label"] for entry in single]
    flat = post(client, {"inputs": TEXTS[:2], "truncate": True}).json()
    labels = [item.label for item in engine.classify(TEXTS[:2])]
    assert [entry[0]["label"] for entry in batch] == labels
    assert [entry[0]["label"] for entry in flat] == labels
    long = "order " * 100
    problem(post(client, {"inputs": long}), "text_too_long")  # as they refuse by default
    assert post(client, {"inputs": long, "truncate": True}).status_code == 200
    raw = post(client, {"inputs": TEXTS[0], "raw_scores": True}).json()
    assert {e["label"]: e["score"] for e in raw} == pytest.approx(
        dict(zip(LABELS, engine.logits([TEXTS[0]])[0].tolist(), strict=True)), abs=1e-4
    )
    problem(post(client, {"inputs": ["fine", 3]}), "invalid_text")
    # All that its own API names, and what huggingface_hub's client adds.
    full = {"inputs": "up " * 100 + "down " * 100, "raw_scores": False, "truncate": True}
    left, right = (
        post(client, {**full, "truncation_direction": side, "parameters": {}}).json()
        for side in ("Left", "Right")
    )
    assert {item["label"] for item in left} == {*LABELS}
    assert left != right
    problem(post(client, {"text": "Up", "parameters": {}}), "invalid_request")


def test_explanation_is_what_leaving_words_out_does(client: TestClient, engine: Engine) -> None:
    text = "Harrow cut  its outlook sharply."
    body = post(client, {"text": text}, "/explain").json()
    assert body["text"] == "Harrow cut its outlook sharply."
    whole = engine.classify([text])[0]
    assert body["label"] == whole.label
    assert [word["text"] for word in body["words"]] == body["text"].split()
    for word in body["words"]:
        assert body["text"][word["start"] : word["end"]] == word["text"]
        rest = body["text"][: word["start"]] + body["text"][word["end"] :]
        without = engine.classify([rest])[0].probabilities
        lost = {name: whole.probabilities[name] - without[name] for name in LABELS}
        assert word["attribution"] == pytest.approx(lost[whole.label], abs=1e-4)
        assert word["by_label"] == pytest.approx(lost, abs=1e-4)
    assert any(abs(word["attribution"]) > 0.01 for word in body["words"])


def test_long_and_blank_texts_are_explained_or_refused(client: TestClient) -> None:
    many = post(client, {"text": " ".join(f"word{i}" for i in range(500))}, "/explain").json()
    assert 32 <= len(many["words"]) <= 64
    assert many["words"][0]["text"].startswith("word0 word1")
    problem(post(client, {"text": " "}, "/explain"), "invalid_text")
    problem(post(client, {"texts": ["a"]}, "/explain"), "invalid_request")
    assert len(post(client, {"text": "Up"}, "/explain").json()["words"]) == 1
    for text in ("\u200b", "\ufeff", "&nbsp;"):  # nothing that the model would read
        problem(post(client, {"text": text}, "/explain"), "invalid_text")
        problem(post(client, {"text": text}), "invalid_text")


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


# --- refused requests -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ('{"text": "\\ud800"}', "invalid_json"),  # half a surrogate pair
        ("[" * 50_000, "invalid_json"),
        ("[1]", "invalid_request"),
        ("null", "invalid_request"),
        ("{}", "invalid_request"),
        ('{"text": "a", "texts": ["b"]}', "invalid_request"),
        ('{"text": 3}', "invalid_request"),
        ('{"texts": "a"}', "invalid_request"),
        ('{"text": "a", "raw_scores": "yes"}', "invalid_request"),
        ('{"text": "a", "truncate": "middle"}', "invalid_request"),
        ('{"text": "a", "truncate": true}', "invalid_request"),
        ('{"text": "a", "txet": "b"}', "invalid_request"),
        ('{"text": ""}', "invalid_text"),
        ('{"text": "\\u0000"}', "invalid_text"),  # nothing is left after normalization
        ('{"text": "\\u200b\\ufeff"}', "invalid_text"),
        (json.dumps({"text": "x" * 20_001}), "text_too_long"),
        (json.dumps({"texts": ["a"] * 1025}), "too_many_texts"),
        (json.dumps({"text": "x" * (3 << 20)}), "body_too_large"),
    ],
)
def test_invalid_requests_get_the_matching_problem(
    client: TestClient, body: str, code: str
) -> None:
    problem(client.post("/predict", content=body), code)


def test_messages_name_field_and_limit(client: TestClient) -> None:
    assert "txet" in problem(post(client, {"text": "a", "txet": 1}), "invalid_request")["detail"]
    refusal = problem(post(client, {"texts": ["a"] * 1025}), "too_many_texts")
    assert "1024" in refusal["detail"]
    assert "serve.limits.texts" in refusal["detail"]


def test_compressed_bodies_are_not_unpacked(client: TestClient) -> None:
    response = client.post("/predict", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    problem(response, "unsupported_media_type")


def test_body_without_a_length_is_cut_off_at_the_limit(
    serving: Callable[..., TestClient],
) -> None:
    client = serving(limits=LimitsConfig(body_bytes=2000))
    pieces = (b"x" * 500 for _ in range(10))
    problem(client.post("/predict", content=pieces), "body_too_large")


def test_unknown_paths_and_methods(client: TestClient) -> None:
    problem(client.get("/nope"), "not_found")
    result = client.get("/predict")
    problem(result, "method_not_allowed")
    assert "POST" in result.headers["allow"]


def test_request_ids_are_kept_where_they_are_plain(client: TestClient) -> None:
    assert post(client, {"text": "Up"}, x_request_id="desk-17").json()["request_id"] == "desk-17"
    for odd in ("", "x" * 200):
        assert post(client, {"text": "Up"}, x_request_id=odd).json()["request_id"] != odd


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(["text", "texts", "inputs", "raw_scores", "truncate"]),
)
@examples(100)
def test_no_json_causes_an_internal_error(client: TestClient, value: Any, field: str) -> None:
    body = json.dumps({field: value} if field != "raw_scores" else {"text": "a", field: value})
    for path in ("/predict", "/explain"):
        assert client.post(path, content=body).status_code < 500, body


@given(st.binary(max_size=400))
@examples(60)
def test_no_bytes_cause_an_internal_error(client: TestClient, body: bytes) -> None:
    for path in ("/predict", "/explain", "/predict/file"):
        assert client.post(path, content=body).status_code < 500


# --- load -----------------------------------------------------------------------------------------


def in_loop(app: Any, test: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.wait_for(test(client), 60)

    return asyncio.run(main())


def test_answers_do_not_depend_on_other_requests(registry: Registry, engine: Engine) -> None:
    draw = random.Random(1)
    texts = [f"{TEXTS[draw.randrange(7)]} {i}" for i in range(300)]
    alone = [engine.probabilities([text])[0] for text in texts]

    async def test(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/predict", json={"text": t}) for t in texts))

    responses = in_loop(make_app(registry), test)
    assert max(int(item.headers["x-batch-size"]) for item in responses) > 4
    for response, expected in zip(responses, alone, strict=True):
        body = [*response.json()["probabilities"].values()]
        assert np.array(body) == pytest.approx(expected, abs=1e-5)


def test_a_deadline_starts_when_the_proxy_accepts_the_request(client: TestClient) -> None:
    def asked(began: float | str) -> Any:
        message = began if isinstance(began, str) else f"t={began * 1000:.0f}"
        headers: Any = {"x-request-start": message.encode(), "x-request-timeout-ms": "5000"}
        return client.post("/predict", json={"text": "Up"}, headers=headers)

    late = asked(time.time() - 6)
    assert problem(late, "deadline_exceeded")["detail"].startswith("no answer")
    assert "connection" not in late.headers, "under overload a new connection is more work"
    assert asked(time.time() - 1).status_code == 200
    assert asked(time.time() + 100).status_code == 200  # another clock
    for odd in ("", "t=", "soon", "t=-5", "t=²", "t=" + "9" * 5000):
        assert asked(odd).status_code == 200


def test_a_deadline_ends_a_request(client: TestClient) -> None:
    body = {"texts": ["order " * 60] * 1000}
    late = post(client, body, x_request_timeout_ms="1")
    assert "1 ms" in problem(late, "deadline_exceeded")["detail"]
    assert "connection" not in late.headers
    assert post(client, {"text": "Up"}).status_code == 200  # nothing is left behind
    assert client.get("/health").json()["queue_tokens"] < 10_000
    for odd in ("0", "-1", "soon", "1e3", "²"):
        headers: Any = {"x-request-timeout-ms": odd.encode()}
        response = client.post("/predict", json={"text": "Up"}, headers=headers)
        problem(response, "invalid_request")
    assert post(client, {"text": "Up"}, x_request_timeout_ms="999999999999").status_code == 200


def sends(
    app: Any, *events: dict[str, Any], timeout_ms: int = 10_000, path: str = "/predict"
) -> int:
    """Return the status for a client that sends a part of its request, and then nothing."""
    given, status = iter(events), []

    async def receive() -> Any:
        event = next(given, None)
        return event if event else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "headers": [(b"x-request-timeout-ms", str(timeout_ms).encode())],
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    return int(status[0])


def test_an_incomplete_body_ends_at_the_deadline(registry: Registry) -> None:
    part = {"type": "http.request", "body": b'{"text"', "more_body": True}
    app = make_app(registry, limits=LimitsConfig(files=1))
    assert sends(app, part, timeout_ms=50) == 504
    for _ in range(2):  # the first one is not counted for ever
        assert sends(app, part, timeout_ms=50, path="/predict/file") == 504


def test_a_client_that_leaves_within_its_body_is_not_logged_as_an_error(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    part = {"type": "http.request", "body": b'{"text"', "more_body": True}
    assert sends(make_app(registry), part, {"type": "http.disconnect"}) == 499
    assert "Traceback" not in caplog.text
    assert not [item for item in caplog.records if item.levelno >= logging.ERROR]


def test_more_than_can_wait_is_refused_as_a_whole(registry: Registry) -> None:
    app = make_app(registry, limits=LimitsConfig(queue_seconds=0.05))

    async def test(client: httpx.AsyncClient) -> list[httpx.Response]:
        await client.post("/predict", json={"texts": TEXTS})  # a rate is measured
        bulk = {"texts": ["order " * 60] * 500}
        return await asyncio.gather(*(client.post("/predict", json=bulk) for _ in range(40)))

    result = in_loop(app, test)
    refused = [item for item in result if item.status_code == 429]
    assert refused
    assert len(refused) < 40
    for item in refused:
        detail = problem(item, "overloaded")["detail"]
        drain = float(re.search(r"([\d.]+) s of work", detail)[1])  # type: ignore[index]
        assert 1 <= int(item.headers["retry-after"]) <= drain + 1.1  # rounded up
    for item in result:
        if item.status_code == 200:
            assert all("label" in answer for answer in item.json()["predictions"])


def test_others_are_served_while_a_long_list_is_encoded(registry: Registry) -> None:
    async def main() -> None:
        service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
        await service.models.follow()
        texts = [f"{i} " + "profit rose " * 700 for i in range(200)]
        encoded = asyncio.create_task(service.encode(service.model, texts, "right"))
        turns = 0
        while not encoded.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 20
        rows = [item.ids for item in await encoded if not isinstance(item, InputError)]
        assert rows == [item.ids for item in service.model.engine.encode(texts)]

    asyncio.run(main())


def test_too_many_requests_at_a_time_are_refused(registry: Registry) -> None:
    app = make_app(registry, limits=LimitsConfig(requests=5))

    async def test(client: httpx.AsyncClient) -> list[httpx.Response]:
        asked = (client.post("/predict", json={"text": f"order {i}"}) for i in range(30))
        return await asyncio.gather(*asked)

    codes = [item.status_code for item in in_loop(app, test)]
    assert set(codes) == {200, 429}


def test_cache_answers_the_same_text_once(serving: Callable[..., TestClient]) -> None:
    client = serving(cache_entries=2)
    first = post(client, {"text": "Profit rose."})
    again = post(client, {"text": "Profit rose."})
    assert first.json()["probabilities"] == again.json()["probabilities"]
    assert (first.headers["x-batch-size"], again.headers["x-batch-size"]) == ("1", "0")
    for text in ("a", "b"):
        post(client, {"text": text})
    assert post(client, {"text": "Profit rose."}).headers["x-batch-size"] == "1"  # pushed out
    assert "finsent_cache_hits_total 1.0" in client.get("/metrics").text


# --- sources --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tweets(registry: Registry) -> Any:
    """Publish a calibration of the champion, and return an engine that uses it."""
    domain = publish_domain(registry, temperature=5.0)
    return Engine(registry.get("champion").path, ENGINE, domain=domain)


def test_a_source_picks_its_calibration_in_every_dialect(
    serving: Callable[..., TestClient], engine: Engine, tweets: Engine
) -> None:
    client = serving(calibrations={"x.com": "tweets", "news": None}, cache_entries=100)
    expected, own = tweets.classify(TEXTS), engine.classify(TEXTS)
    labels = [item.label for item in expected]
    assert labels != [item.label for item in own]  # a bias changes labels

    for _ in range(2):  # from the cache, too
        for source, target in (("x.com", expected), (None, own), ("news", own)):
            body: Any = {"texts": TEXTS, "source": source, "raw_scores": True}
            for item, want in zip(post(client, body).json()["predictions"], target, strict=True):
                assert item["calibration"] == ("tweets" if source == "x.com" else None)
                assert (item["label"], item["abstained"]) == (want.label, want.abstained)
                assert item["probabilities"] == pytest.approx(want.probabilities, abs=1e-5)
                scores = item["raw_scores"]
                assert max(scores, key=scores.__getitem__) == want.label

    for scores in ({}, {"raw_scores": True}):
        body = {"inputs": TEXTS, "source": "x.com", "truncate": True, **scores}
        assert [item[0]["label"] for item in post(client, body).json()] == labels
    cut = {"input": TEXTS, "source": "x.com", "truncate_prompt_tokens": -1}
    assert [item["label"] for item in post(client, cut, "/classify").json()["data"]] == labels
    answer = post(client, {"text": TEXTS[0], "source": "x.com"}, "/explain").json()
    assert (answer["label"], answer["calibration"]) == (labels[0], "tweets")
    sheet = client.post(
        "/predict/file?format=text&source=x.com",
        content="\n".join(TEXTS).encode(),
        headers={"content-type": "text/plain"},
    )
    rows = list(csv.DictReader(io.StringIO(sheet.text)))
    assert [(row["label"], row["calibration"]) for row in rows] == [(n, "tweets") for n in labels]
    shown = client.get("/info").json()["calibrations"]
    assert shown["news"] is None
    assert shown["x.com"].keys() == {"name", "id", "threshold", "sources", "rows"}


@pytest.mark.usefixtures("tweets")
def test_an_unknown_source_is_refused(serving: Callable[..., TestClient]) -> None:
    client = serving(calibrations=["tweets"])
    body = {"source": "tweetz"}
    for path, text in (("/predict", "text"), ("/predict", "inputs"), ("/explain", "text")):
        refusal = problem(post(client, {text: "Up", **body}, path), "unknown_source")
        assert "known: tweets" in refusal["detail"]
    assert post(client, {"input": "Up", **body}, "/classify").status_code == 400
    refused = client.post("/predict/file?source=tweetz", content=b"text\nUp\n")
    problem(refused, "unknown_source")


@pytest.mark.usefixtures("tweets")
def test_a_version_without_the_calibration_is_not_followed(registry: Registry) -> None:
    service = Service(registry.root, ServeConfig(calibrations={"t": "tweets"}), ENGINE)
    asyncio.run(service.models.follow())
    with pytest.raises(InputError, match=r"has no calibration of that name .known: none"):
        asyncio.run(service.models.follow("challenger"))
    assert service.model.version == registry.get("champion").version


def test_a_replaced_calibration_is_followed(registry: Registry, tweets: Engine) -> None:
    service = Service(registry.root, ServeConfig(calibrations={"a": "moving"}), ENGINE)
    for temperature in (2.0, 3.0):
        replaced = publish_domain(registry, name="moving", temperature=temperature)
        asyncio.run(service.models.follow())
        info: Any = service.models.calibrations()
        assert info["a"]["id"] == replaced.id
        used = service.models.calibration(service.model, "a")
        assert used.temperature == pytest.approx(temperature * tweets.temperature / 5.0)


# --- models ---------------------------------------------------------------------------------------


def test_alias_is_followed_under_load_without_a_failed_request(registry: Registry) -> None:
    service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
    asyncio.run(service.models.follow())
    versions = registry.aliases()
    expected = {
        version: Engine(registry.get(version).path, ENGINE).classify(TEXTS)
        for version in versions.values()
    }

    async def test(client: httpx.AsyncClient) -> None:
        seen: set[str] = set()
        done = False

        async def ask() -> None:
            while not done:
                for i, text in enumerate(TEXTS):
                    body = (await client.post("/predict", json={"text": text})).json()
                    seen.add(body["model_version"])
                    target = expected[body["model_version"]][i]
                    assert body["score"] == pytest.approx(target.score, abs=1e-5)

        askers = asyncio.gather(*(ask() for _ in range(8)))
        for turn in range(6):
            alias = ("challenger", "champion")[turn % 2]
            await service.models.follow(alias)
            seen.clear()
            while versions[alias] not in seen and not askers.done():
                await asyncio.sleep(0.01)
        done = True
        await askers

    in_loop(build_app(service, Keys(None)), test)


def test_version_that_is_broken_is_refused_and_the_old_one_stays(
    tiny: Path, tmp_path: Path
) -> None:
    own = Registry(tmp_path / "registry")
    good = own.publish(saved_model(tiny, tmp_path / "good", 3), METRICS, {})
    bad = own.publish(saved_model(tiny, tmp_path / "bad", 4), METRICS, {})
    own.promote(good.version, "champion")
    service = Service(own.root, ServeConfig(watch_seconds=0), EngineConfig(threads=1))
    asyncio.run(service.models.follow())
    (bad.path / "model.safetensors").chmod(0o644)
    with (bad.path / "model.safetensors").open("ab") as stream:
        stream.write(b"\0")

    async def test(client: httpx.AsyncClient) -> dict[str, Any]:
        with pytest.raises(InputError, match="SHA-256"):
            await service.models.follow(bad.version)
        answer = await client.post("/predict", json={"text": "Up"})
        assert answer.json()["model_version"] == good.version
        info: dict[str, Any] = (await client.get("/info")).json()
        return info

    info = in_loop(build_app(service, Keys(None)), test)
    assert info["model_version"] == good.version
    assert info["refused"]["version"] == bad.version
    assert "SHA-256" in info["refused"]["reason"]


def test_a_version_that_cannot_be_loaded_costs_little_and_does_not_end_the_watch(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    load = Model.load

    def broken(registry: Registry, reference: str, config: EngineConfig) -> Model:
        if reference == registry.aliases()["challenger"]:
            tried.append(reference)
            raise RuntimeError("bad allocation")
        return load(registry, reference, config)

    def unreadable() -> dict[str, str]:
        raise OSError("stale file handle")

    async def main() -> None:
        service = Service(registry.root, ServeConfig(watch_seconds=0.01), ENGINE)
        monkeypatch.setattr(Model, "load", broken)
        await service.models.follow()
        watching = asyncio.create_task(service.models.watch())
        with pytest.raises(InputError, match=r"cannot be loaded.*bad allocation"):
            await service.models.follow("challenger")
        await asyncio.sleep(0.3)
        assert len(tried) == 1
        assert service.models.refused_version is not None
        assert service.model.version == registry.aliases()["champion"]
        monkeypatch.setattr(service.registry, "aliases", unreadable)
        await asyncio.sleep(0.1)
        assert not watching.done()
        watching.cancel()

    asyncio.run(main())


def test_a_version_stays_until_its_requests_are_answered(registry: Registry) -> None:
    async def main() -> None:
        service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
        await service.models.follow()
        asked = asyncio.create_task(service.classify(["Profit rose."]))
        await asyncio.sleep(0)  # it is being encoded, and not in the queue yet
        await asyncio.gather(asyncio.wait_for(service.model.retire(), 20), asked)

        await service.models.follow("challenger")
        retired: list[asyncio.Task[None]] = []

        def retire(*_: Any) -> None:
            """Begin when the text is answered, before its words are."""
            retired.append(asyncio.create_task(service.model.retire()))

        service.answer_listeners.append(retire)
        explanation = await explain(service, "Profit rose.", None, Sender("1"))
        assert len(explanation.words) == 2
        await asyncio.wait_for(asyncio.gather(*retired), 20)

    asyncio.run(main())


def test_a_version_that_was_replaced_is_freed(registry: Registry) -> None:
    async def main() -> None:
        service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
        await service.models.follow()
        old = weakref.ref(service.model)
        gc.disable()  # a replica's first model is frozen: no collection looks at it
        try:
            await service.models.follow("challenger")
            for _ in range(1000):
                if old() is None:
                    break
                await asyncio.sleep(0.02)
            assert old() is None
        finally:
            gc.enable()

    asyncio.run(main())


def test_before_a_model_is_loaded_requests_are_refused(registry: Registry) -> None:
    service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
    with TestClient(build_app(service, Keys(None))) as client:
        problem(client.get("/readyz"), "not_ready")
        problem(post(client, {"text": "Up"}), "not_ready")
        assert client.get("/livez").status_code == 200


def test_info_describes_the_model(client: TestClient, registry: Registry) -> None:
    info = client.get("/info").json()
    assert info["model_version"] == registry.aliases()["champion"]
    assert (info["labels"], info["max_length"]) == (list(LABELS), MAX_LENGTH)
    assert info["backend"] == "onnxruntime-fp32"
    assert info["limits"]["texts"] == 1024
    assert info["gate"] is None  # the first champion
    assert client.get("/health").json()["status"] == "ok"


def test_the_model_card_is_returned(client: TestClient, registry: Registry) -> None:
    response = client.get("/model-card")
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    assert response.text == (registry.get("champion").path / CARD).read_text(encoding="utf-8")


def test_metrics_count_requests_texts_and_tokens(
    serving: Callable[..., TestClient], engine: Engine
) -> None:
    client = serving()
    texts = [*TEXTS, "order " * 60]
    post(client, {"texts": [*texts, 3]})
    post(client, {"text": ""})
    text = client.get("/metrics").text
    assert 'finsent_requests_total{operation="predict",status="200"} 1.0' in text
    assert 'finsent_requests_total{operation="predict",status="422"} 1.0' in text
    assert 'finsent_problems_total{code="invalid_text"} 1.0' in text
    assert 'finsent_text_problems_total{code="invalid_text"} 2.0' in text
    lengths = [len(item.ids) for item in engine.encode(texts)]
    assert f'finsent_tokens_total{{kind="text"}} {sum(lengths)}.0' in text
    assert 'finsent_stage_seconds_count{stage="inference"} 1.0' in text
    truncated = sum(item.truncated for item in engine.encode(texts))
    assert truncated
    assert f'finsent_marked_predictions_total{{mark="truncated"}} {truncated}.0' in text
    counts = [
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("finsent_predictions_total")
    ]
    assert sum(counts) == len(texts)


# --- keys, origins, pages -------------------------------------------------------------------------


def test_keys_open_what_their_role_allows(
    serving: Callable[..., TestClient], tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    desk, root = new_key(path, "desk", "predict"), new_key(path, "root", "admin")
    assert desk not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    client = serving(api_keys=str(path))
    for headers in ({}, {"authorization": "Bearer no"}, {"x-api-key": ""}, {"authorization": desk}):
        response = client.post("/predict", json={"text": "Up"}, headers=headers)
        problem(response, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
    for headers in ({"authorization": f"Bearer {desk}"}, {"x-api-key": root}):
        assert client.post("/predict", json={"text": "Up"}, headers=headers).status_code == 200
    problem(client.get("/metrics", headers={"x-api-key": desk}), "forbidden")
    assert client.get("/metrics", headers={"x-api-key": root}).status_code == 200
    assert client.get("/readyz").status_code == 200  # probes carry no key
    assert client.get("/").status_code == 200


def test_added_and_deleted_keys_take_effect_without_a_restart(
    serving: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_REFRESH_SECONDS", 0.0)
    path = tmp_path / "keys.json"
    first = new_key(path, "first", "predict")
    client = serving(api_keys=str(path))

    def status(key: str) -> int:
        headers = {"x-api-key": key}
        return client.post("/predict", json={"text": "Up"}, headers=headers).status_code

    second = new_key(path, "second", "predict")
    assert (status(first), status(second)) == (200, 200)
    keys = json.loads(path.read_text())["keys"]
    path.write_text(json.dumps({"keys": keys[1:]}))
    assert (status(first), status(second)) == (401, 200)
    path.write_text("{")  # half a file opens and closes nothing
    assert (status(first), status(second)) == (401, 200)


def test_file_of_keys_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    new_key(path, "desk", "predict")
    for name, role in (("desk", "predict"), ("other", "king"), (auth.UNKNOWN, "predict")):
        with pytest.raises(InputError):
            new_key(path, name, role)
    assert [key.name for key in read_keys(path)] == ["desk"]
    path.write_text('{"keys": [{"name": "a", "role": "king", "sha256": "0"}]}')
    with pytest.raises(InputError, match=r"serve\.api_keys=.*new-key"):
        read_keys(path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"^serve\.api_keys=.*not a file of keys"):
        read_keys(path)
    for unreadable in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match=r"^serve\.api_keys=.*cannot read it .*new-key"):
            read_keys(unreadable)
    # Logs and metrics name refused keys so, and count names as texts.
    for bad in (auth.UNKNOWN, 7):
        path.write_text(json.dumps({"keys": [{"name": bad, "role": "admin", "sha256": "0" * 64}]}))
        with pytest.raises(InputError, match="each name must be a text other than 'unknown'"):
            read_keys(path)


def test_other_origins_are_allowed_only_by_name(serving: Callable[..., TestClient]) -> None:
    ask = {"origin": "https://desk.example"}
    closed, opened = serving(), serving(cors_origins=["https://desk.example"])
    assert "access-control-allow-origin" not in closed.get("/health", headers=ask).headers
    result = opened.get("/health", headers=ask).headers
    assert result["access-control-allow-origin"] == "https://desk.example"
    other = opened.get("/health", headers={"origin": "https://evil.example"}).headers
    assert "access-control-allow-origin" not in other


@pytest.mark.parametrize(
    "origin",
    ["desk.example", "https://desk.example/", "https://", "null", "https://desk.example/a b"],
)
def test_invalid_origins_are_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"serve\.cors_origins: .* is not an origin"):
        load(JobSettings, [], [f"serve.cors_origins={json.dumps([origin])}"])


def test_pages_load_nothing_from_other_hosts(client: TestClient) -> None:
    paths = pages()
    assert {"/", "/docs", "/page.js", "/page.css", "/docs.js"} < paths.keys()
    for path in paths:
        response = client.get(path)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        assert "http://" not in response.text
        assert "https://" not in response.text
        # A reverse proxy may serve the page below any path.
        assert not re.search(r"""(href|src)="/|(fetch|ask|post)\(["'`]/|from "/""", response.text)
    assert client.get("/").headers["content-type"].startswith("text/html")


def test_the_openapi_document_has_all_paths(client: TestClient) -> None:
    body = client.get("/openapi.json").json()
    assert body["openapi"].startswith("3.1")
    assert {
        "/predict",
        "/explain",
        "/predict/file",
        "/info",
        "/health",
        "/livez",
        "/readyz",
        "/metrics",
        "/",
        "/invocations",
        "/tokenize",
        "/decode",
        "/ping",
        "/classify",
        "/v1/classify",
        "/v1/models",
        "/model-card",
    } == body["paths"].keys()
    statuses = body["paths"]["/predict"]["post"]["responses"].keys()
    assert {"200", "400", "401", "413", "422", "429", "503", "504"} <= statuses
    for name in ("PredictAnswer", "PredictList", "ProblemAnswer", "PredictRequest"):
        assert name in body["components"]["schemas"]


@pytest.mark.parametrize("wanted", [False, True])
def test_texts_are_logged_only_if_configured(
    serving: Callable[..., TestClient], caplog: pytest.LogCaptureFixture, wanted: bool
) -> None:
    client = serving(log_texts=wanted)
    with caplog.at_level(logging.INFO, "finsent.requests"):
        post(client, {"text": "Zürich sold its stake."}, x_request_id="desk-9")
        post(client, {"texts": ["Zürich sold its stake.", ""]})
        post(client, {"text": "Zürich " * 60, "truncate": "error"})
    message = caplog.text
    assert ("Zürich sold its stake." in message) == wanted
    assert ("Zürich" in message) == wanted
    assert "text_too_long" in message


@pytest.mark.parametrize("every", [False, True])
def test_each_request_is_logged_if_configured(
    serving: Callable[..., TestClient], caplog: pytest.LogCaptureFixture, every: bool
) -> None:
    client = serving(log_requests=every)
    with caplog.at_level(logging.INFO, "finsent.requests"):
        version = post(client, {"text": "Up"}, x_request_id="desk-1").json()["model_version"]
        post(client, {"text": ""}, x_request_id="desk-2")
    lines = [json.loads(item.message) for item in caplog.records if item.name == "finsent.requests"]
    if every:
        good = lines.pop(0)
        assert (good["request_id"], good["status"], good["code"]) == ("desk-1", 200, None)
        assert (good["operation"], good["model_version"]) == ("predict", version)
        assert 0 < good["inference_seconds"] < good["seconds"]
    [bad] = lines
    assert (bad["request_id"], bad["status"], bad["code"]) == ("desk-2", 422, "invalid_text")
