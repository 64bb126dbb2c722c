"""Clients of Hugging Face's hub, in Python and JavaScript."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.integration.clients.cases import OTHER, TEXT, World, case, near, ranked

HUB = "huggingface_hub"


def hub(world: World, path: str = "") -> Any:
    from huggingface_hub import InferenceClient

    return InferenceClient(model=world.url + path)


@case(
    HUB,
    "InferenceClient(model=URL).text_classification(text)",
    "POST /",
    "all labels, the best first",
)
def hub_classifies(world: World) -> None:
    ranking = hub(world).text_classification(TEXT)
    ranked(ranking, world.shares(TEXT))
    assert type(ranking[0]).__name__ == "TextClassificationOutputElement"
    assert {*ranking[0]} == {"label", "score"}


@case(HUB, "... .text_classification(text, top_k=2)", "POST /", "the best two labels")
def hub_top_k(world: World) -> None:
    ranking = hub(world).text_classification(TEXT, top_k=2)
    ranked(ranking, dict([*world.shares(TEXT).items()][:2]))


@case(HUB, '... .text_classification(text, function_to_apply="none")', "POST /", "the logits")
def hub_logits(world: World) -> None:
    ranking = hub(world).text_classification(TEXT, function_to_apply="none")
    ranked(ranking, world.logits(TEXT))


@case(
    HUB,
    'InferenceClient(model=URL + "/predict").text_classification(text)',
    "POST /predict",
    "the same as for URL",
)
def hub_predict(world: World) -> None:
    ranked(hub(world, "/predict").text_classification(TEXT), world.shares(TEXT))


@case(HUB, "AsyncInferenceClient(model=URL).text_classification(text)", "POST /", "the same")
def hub_async(world: World) -> None:
    import asyncio

    from huggingface_hub import AsyncInferenceClient

    async def ask() -> Any:
        async with AsyncInferenceClient(model=world.url) as client:
            return await client.text_classification(OTHER)

    ranked(asyncio.run(ask()), world.shares(OTHER))


@case(
    HUB,
    "... .zero_shot_classification(text, labels)",
    "POST /",
    "HfHubHTTPError 422: the labels are fixed",
)
def hub_zero_shot(world: World) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    with pytest.raises(HfHubHTTPError, match="the labels are negative, neutral, positive"):
        hub(world).zero_shot_classification(TEXT, ["up", "down"])


@case(HUB, '... .text_classification("")', "POST /", "HfHubHTTPError 422 with the reason")
def hub_blank(world: World) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    with pytest.raises(HfHubHTTPError, match="the text is blank"):
        hub(world).text_classification("")


JS = "@huggingface/inference 4.13.30"


def script(world: World, *calls: str) -> list[Any]:
    """Run calls in Node, and return what each gives, or its error's message as {"error": ...}."""
    code = f"""
      import {{ InferenceClient, textClassification }} from "@huggingface/inference";
      const URL = {json.dumps(world.url)}, text = {json.dumps(TEXT)};
      for (const call of [{", ".join("() => " + call for call in calls)}]) {{
        try {{ console.log(JSON.stringify(await call())); }}
        catch (error) {{ console.log(JSON.stringify({{ error: error.message }})); }}
      }}"""
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code],
        cwd=world.node(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def plain(ranking: list[dict[str, Any]], expected: dict[str, float]) -> None:
    assert [item["label"] for item in ranking] == [*expected]
    assert [item["score"] for item in ranking] == near([*expected.values()])
    assert all(item.keys() == {"label", "score"} for item in ranking)


@case(
    JS,
    "textClassification({ endpointUrl: URL, inputs: text })",
    "POST /",
    "all labels, the best first",
)
def js_classifies(world: World) -> None:
    [ranking] = script(world, "textClassification({ endpointUrl: URL, inputs: text })")
    plain(ranking, world.shares(TEXT))


@case(
    JS,
    "new InferenceClient().endpoint(URL).textClassification({ inputs: text, parameters })",
    "POST /",
    "as the parameters top_k and function_to_apply want it",
)
def js_parameters(world: World) -> None:
    ask = "new InferenceClient().endpoint(URL).textClassification({ inputs: text, parameters: %s })"
    top_label, logits, wrong = script(
        world, ask % "{ top_k: 1 }", ask % '{ function_to_apply: "none" }', ask % "{ top_k: 0 }"
    )
    plain(top_label, dict([*world.shares(TEXT).items()][:1]))
    plain(logits, world.logits(TEXT))
    assert "top_k" in wrong["error"]


@case(
    JS,
    'textClassification({ endpointUrl: URL + "/predict", inputs: text })',
    "POST /predict",
    "the same as for URL",
)
def js_predict(world: World) -> None:
    [ranking] = script(world, 'textClassification({ endpointUrl: URL + "/predict", inputs: text })')
    plain(ranking, world.shares(TEXT))
