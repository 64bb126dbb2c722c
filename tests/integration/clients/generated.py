"""A client that is generated from docs/openapi.json."""

from __future__ import annotations

import importlib
import io
from typing import Any

from tests.integration.clients.cases import TEXT, World, case, near, ranked
from tests.integration.clients.vllm import classified

GENERATED = "openapi-python-client"


def function(world: World, tag: str, name: str) -> Any:
    package = world.generated()
    return importlib.import_module(f"{package.__name__}.api.{tag}.{name}").sync


def asked(world: World, tag: str, name: str, request: str | None = None, **fields: Any) -> Any:
    """Call a generated function with a body of a generated type."""
    package = world.generated()
    client = package.Client(base_url=world.url, raise_on_unexpected_status=True)
    body = {} if request is None else {"body": getattr(package.models, request)(**fields)}
    return function(world, tag, name)(client=client, **body)


@case(
    GENERATED,
    "predict.sync(client=..., body=PredictRequest(text=text))",
    "POST /predict",
    "a PredictAnswer",
)
def generated_predicts(world: World) -> None:
    answer = asked(world, "finsent", "predict", "PredictRequest", text=TEXT)
    [prediction] = world.engine.classify([TEXT])
    assert type(answer).__name__ == "PredictAnswer"
    assert (answer.label, answer.model_version) == (prediction.label, world.version)
    assert answer.probabilities.to_dict() == near(prediction.probabilities)
    assert answer.polarity == near(prediction.polarity)


@case(
    GENERATED,
    "... body=PredictRequest(texts=[...]))",
    "POST /predict",
    "a PredictList, with a ProblemAnswer where a text cannot be classified",
)
def generated_lists(world: World) -> None:
    answer = asked(world, "finsent", "predict", "PredictRequest", texts=[TEXT, " "])
    good, bad = answer.predictions
    assert (good.label, bad.code) == (world.engine.classify([TEXT])[0].label, "invalid_text")


@case(
    GENERATED,
    "explain, info, model_card, health, readyz, livez, metrics, ping",
    "POST /explain, GET /info, GET /model-card, GET /health, GET /readyz, GET /livez, "
    "GET /metrics, GET /ping",
    "their types",
)
def generated_others(world: World) -> None:
    explained = asked(world, "finsent", "explain", "ExplainRequest", text=TEXT)
    assert [word.text for word in explained.words] == TEXT.split()
    assert asked(world, "finsent", "info").model_version == world.version
    for tag, name in (
        ("finsent", "health"),
        ("finsent", "readyz"),
        ("finsent", "livez"),
        ("text_embeddings_inference", "ping"),
    ):
        assert asked(world, tag, name).status == "ok"
    assert "finsent_requests" in asked(world, "finsent", "metrics")
    assert f"# Financial sentiment {world.version}" in asked(world, "finsent", "model_card")


@case(GENERATED, "predict_file.sync(client=..., body=File(...))", "POST /predict/file", "the CSV")
def generated_file(world: World) -> None:
    package = world.generated()
    client = package.Client(base_url=world.url)
    file = package.types.File(io.BytesIO(f"text\n{TEXT}\n".encode()))
    header, row = function(world, "finsent", "predict_file")(client=client, body=file).splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert (cells["text"], cells["label"]) == (TEXT, world.engine.classify([TEXT])[0].label)


@case(
    GENERATED,
    "infer, invocations, tokenize, decode",
    "POST /, POST /invocations, POST /tokenize, POST /decode",
    "lists of their types",
)
def generated_tei(world: World) -> None:
    tag = "text_embeddings_inference"
    [ranking] = asked(world, tag, "infer", "TeiRequest", inputs=TEXT)
    ranked(ranking, world.shares(TEXT))
    ranked(asked(world, tag, "invocations", "TeiRequest", inputs=TEXT), world.shares(TEXT))
    [tokens] = asked(world, tag, "tokenize", "TokenizeRequest", inputs=TEXT)
    ids = [token.id for token in tokens]
    assert ids == world.engine.encode([TEXT])[0].ids
    [text] = asked(world, tag, "decode", "DecodeRequest", ids=ids)
    assert text


@case(
    GENERATED,
    "classify, classify_v1, models",
    "POST /classify, POST /v1/classify, GET /v1/models",
    "their types",
)
def generated_vllm(world: World) -> None:
    for name in ("classify", "classify_v1"):
        answer = asked(world, "vllm", name, "ClassifyRequest", input_=TEXT)
        classified(world, answer.to_dict(), [TEXT])
    assert asked(world, "vllm", "models").data[0].root == world.version


@case(
    GENERATED,
    "... with a body that is refused",
    "POST /classify, POST /predict",
    "an ErrorAnswer or ProblemAnswer",
)
def generated_problems(world: World) -> None:
    answer = asked(world, "vllm", "classify", "ClassifyRequest", input_="")
    assert answer.error.code == 400
    assert asked(world, "finsent", "predict", "PredictRequest", text="").code == "invalid_text"
