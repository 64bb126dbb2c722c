"""The client of text-embeddings-inference."""

from __future__ import annotations

from typing import Any

from finsent.labels import LABELS
from tests.integration.clients.cases import LONG, OTHER, TEXT, World, case, near, ranked

TEI = "tei-client 0.2.4"


def tei(world: World) -> Any:
    from tei_client import HttpClient

    return HttpClient(world.url)


@case(
    TEI,
    "HttpClient(URL).classify(text)",
    "GET /info, POST /predict",
    "a list of one ClassificationResult",
)
def tei_classifies(world: World) -> None:
    [found] = tei(world).classify(TEXT)
    ranked(found.scores, world.shares(TEXT))


@case(
    TEI,
    "... .classify([text, text])",
    "GET /info, POST /predict",
    "a ClassificationResult per text",
)
def tei_lists(world: World) -> None:
    for found, text in zip(tei(world).classify([TEXT, OTHER]), (TEXT, OTHER), strict=True):
        ranked(found.scores, world.shares(text))


@case(TEI, "... .classify(text, raw_scores=True)", "GET /info, POST /predict", "the logits")
def tei_logits(world: World) -> None:
    [found] = tei(world).classify(TEXT, raw_scores=True)
    ranked(found.scores, world.logits(TEXT))


@case(
    TEI,
    "... .classify(text, truncate=True, truncation_direction=...)",
    "GET /info, POST /predict",
    "the answer for the part that is left",
)
def tei_truncates(world: World) -> None:
    from tei_client.models import TruncationDirection

    def ask(side: Any) -> dict[str, float]:
        [found] = tei(world).classify(LONG, truncate=True, truncation_direction=side)
        return {one.label: one.score for one in found.scores}

    assert ask(TruncationDirection.Right) == near(world.shares(LONG))
    assert ask(TruncationDirection.Left) == near(world.shares("down " * 100))


@case(TEI, "... .async_classify(text)", "GET /info, POST /predict", "the same")
def tei_async(world: World) -> None:
    import asyncio

    [found] = asyncio.run(tei(world).async_classify(TEXT))
    ranked(found.scores, world.shares(TEXT))


@case(TEI, "... .info()", "GET /info", "the model's type, labels and limits")
def tei_info(world: World) -> None:
    found = tei(world).info()
    assert found.server_model_type.value == "classifier"
    assert found.server_model_metadata.id2label == {str(i): x for i, x in enumerate(LABELS)}
    assert found.server_model_metadata.label2id == {x: i for i, x in enumerate(LABELS)}
    assert (found.server_model_id, found.server_model_sha) == ("champion", world.version)
    assert found.max_input_length == world.engine.max_length
    assert found.max_client_batch_size == 1024


@case(TEI, "... .health()", "GET /info", "True")
def tei_health(world: World) -> None:
    assert tei(world).health() is True


@case(TEI, "... .tokenize(text)", "POST /tokenize", "a TokenizationResult per text")
def tei_tokenizes(world: World) -> None:
    [found] = tei(world).tokenize(TEXT)
    assert found.get_ids() == world.engine.encode([TEXT])[0].ids
    inner = [one for one in found.tokens if not one.special]
    assert [TEXT[one.start : one.stop] for one in inner] == [one.text for one in inner]


@case(TEI, "... .decode(ids)", "POST /decode", "a text per list of ids")
def tei_decodes(world: World) -> None:
    ids = world.engine.encode(["up"])[0].ids
    assert tei(world).decode([ids]) == ["up"]


@case(TEI, "... .prompt_names()", "POST /tokenize", "[]: there are none")
def tei_prompts(world: World) -> None:
    assert tei(world).prompt_names() == []
