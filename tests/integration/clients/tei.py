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
    [answer] = tei(world).classify(TEXT)
    ranked(answer.scores, world.shares(TEXT))


@case(
    TEI,
    "... .classify([text, text])",
    "GET /info, POST /predict",
    "a ClassificationResult per text",
)
def tei_lists(world: World) -> None:
    for answer, text in zip(tei(world).classify([TEXT, OTHER]), (TEXT, OTHER), strict=True):
        ranked(answer.scores, world.shares(text))


@case(TEI, "... .classify(text, raw_scores=True)", "GET /info, POST /predict", "the logits")
def tei_logits(world: World) -> None:
    [answer] = tei(world).classify(TEXT, raw_scores=True)
    ranked(answer.scores, world.logits(TEXT))


@case(
    TEI,
    "... .classify(text, truncate=True, truncation_direction=...)",
    "GET /info, POST /predict",
    "the answer for the part that is left",
)
def tei_truncates(world: World) -> None:
    from tei_client.models import TruncationDirection

    def ask(side: Any) -> dict[str, float]:
        [answer] = tei(world).classify(LONG, truncate=True, truncation_direction=side)
        return {item.label: item.score for item in answer.scores}

    assert ask(TruncationDirection.Right) == near(world.shares(LONG))
    assert ask(TruncationDirection.Left) == near(world.shares("down " * 100))


@case(TEI, "... .async_classify(text)", "GET /info, POST /predict", "the same")
def tei_async(world: World) -> None:
    import asyncio

    [answer] = asyncio.run(tei(world).async_classify(TEXT))
    ranked(answer.scores, world.shares(TEXT))


@case(TEI, "... .info()", "GET /info", "the model's type, labels and limits")
def tei_info(world: World) -> None:
    info = tei(world).info()
    assert info.server_model_type.value == "classifier"
    assert info.server_model_metadata.id2label == {str(i): x for i, x in enumerate(LABELS)}
    assert info.server_model_metadata.label2id == {x: i for i, x in enumerate(LABELS)}
    assert (info.server_model_id, info.server_model_sha) == ("champion", world.version)
    assert info.max_input_length == world.engine.max_length
    assert info.max_client_batch_size == 1024


@case(TEI, "... .health()", "GET /info", "True")
def tei_health(world: World) -> None:
    assert tei(world).health() is True


@case(TEI, "... .tokenize(text)", "POST /tokenize", "a TokenizationResult per text")
def tei_tokenizes(world: World) -> None:
    [encoding] = tei(world).tokenize(TEXT)
    assert encoding.get_ids() == world.engine.encode([TEXT])[0].ids
    inner = [token for token in encoding.tokens if not token.special]
    assert [TEXT[token.start : token.stop] for token in inner] == [token.text for token in inner]


@case(TEI, "... .decode(ids)", "POST /decode", "a text per list of ids")
def tei_decodes(world: World) -> None:
    ids = world.engine.encode(["up"])[0].ids
    assert tei(world).decode([ids]) == ["up"]


@case(TEI, "... .prompt_names()", "POST /tokenize", "[]: there are none")
def tei_prompts(world: World) -> None:
    assert tei(world).prompt_names() == []
