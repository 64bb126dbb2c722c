"""BentoML with adaptive batching, as its users write it; a peer of `benchmarks.serve`.

Started in this folder by `bentoml serve bentoml_service:Gateway`, with the files in the
environment.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
from predecessor import answer, load  # type: ignore[import-not-found] # beside this file

BATCH = 32


@bentoml.service(traffic={"timeout": 60})
class Sentiment:
    """The model, in a process of its own."""

    def __init__(self) -> None:
        self.session, self.encoder = load(
            os.environ["BENCH_MODEL"], os.environ["BENCH_TOKENIZER"], None
        )

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10_000)  # type: ignore[untyped-decorator]
    def score(self, texts: list[str]) -> list[dict[str, Any]]:
        """All of a batch."""
        found: list[dict[str, Any]] = answer(self.session, self.encoder, texts)
        return found


@bentoml.service(traffic={"timeout": 60})
class Gateway:
    """HTTP."""

    model = bentoml.depends(Sentiment)

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]
    async def predict(self, text: str) -> dict[str, Any]:
        """One text."""
        found = await self.model.to_async.score([text])
        return dict(found[0])
