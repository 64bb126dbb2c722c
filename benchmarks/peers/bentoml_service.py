"""A server by BentoML with adaptive batching, a peer of `benchmarks.serve`.

It is started in this folder by `bentoml serve bentoml_service:Gateway`. The variables BENCH_MODEL
and BENCH_TOKENIZER name its files.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
from predecessor import answer, load  # type: ignore[import-not-found] # next to this file

BATCH = 32


@bentoml.service(traffic={"timeout": 60})
class Sentiment:
    """The model in its own process."""

    def __init__(self) -> None:
        self.session, self.encoder = load(
            os.environ["BENCH_MODEL"], os.environ["BENCH_TOKENIZER"], None
        )

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10_000)  # type: ignore[untyped-decorator]
    def score(self, texts: list[str]) -> list[dict[str, Any]]:
        """Classify the texts of a batch."""
        answers: list[dict[str, Any]] = answer(self.session, self.encoder, texts)
        return answers


@bentoml.service(traffic={"timeout": 60})
class Gateway:
    """The HTTP server."""

    model = bentoml.depends(Sentiment)

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]
    async def predict(self, text: str) -> dict[str, Any]:
        """Classify one text."""
        answers = await self.model.to_async.score([text])
        return dict(answers[0])
