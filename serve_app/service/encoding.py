"""Texts of many requests, tokenized together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.inference.encoder import Encoded
from finsent.inference.engine import Engine
from serve_app.service.model import Model

_PIECE_CHARACTERS = 50_000  # that are tokenized in one step of the event loop: about 12 ms


@dataclass(slots=True)
class _Arrival:
    model: Model
    texts: Sequence[str]
    truncate: Truncate
    encoded: asyncio.Future[list[Encoded | InputError]]


class BatchEncoder:
    """Tokenizes the texts that arrive in one turn of the event loop with one call.

    A text by itself takes 0.19 ms, one of many 0.03 ms.
    """

    def __init__(self) -> None:
        self._arrivals: list[_Arrival] = []

    async def encode(
        self, model: Model, texts: Sequence[str], truncate: Truncate
    ) -> list[Encoded | InputError]:
        """Return the token ids of texts in order, and an error for each text without any."""
        loop = asyncio.get_running_loop()
        rows: list[Encoded | InputError] = []
        for piece in _pieces(texts):
            if not self._arrivals:
                loop.call_soon(self._encode_arrivals)
            arrival = _Arrival(model, piece, truncate, loop.create_future())
            self._arrivals.append(arrival)
            rows += await arrival.encoded
        return rows

    def _encode_arrivals(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        groups: dict[tuple[Model, Truncate], list[_Arrival]] = {}
        for arrival in arrivals:
            if not arrival.encoded.done():  # else the client has left
                groups.setdefault((arrival.model, arrival.truncate), []).append(arrival)
        for (model, truncate), group in groups.items():
            texts = [text for arrival in group for text in arrival.texts]
            try:
                rows = _encode(model.engine, texts, truncate)
            except Exception as error:  # a bug: without an answer, the requests would time out
                for arrival in group:
                    arrival.encoded.set_exception(error)
                continue
            start = 0
            for arrival in group:
                end = start + len(arrival.texts)
                arrival.encoded.set_result(rows[start:end])
                start = end


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split a list so that the event loop serves other requests after each piece."""
    start = characters = 0
    for end, text in enumerate(texts):
        if end > start and characters + len(text) > _PIECE_CHARACTERS:
            yield texts[start:end]
            start, characters = end, 0
        characters += len(text)
    yield texts[start:]


def _encode(engine: Engine, texts: list[str], truncate: Truncate) -> list[Encoded | InputError]:
    try:
        return [*engine.encode(texts, truncate)]
    except InputError:  # of one text: encode each text by itself to find out which
        return [_encode_text(engine, text, truncate) for text in texts]


def _encode_text(engine: Engine, text: str, truncate: Truncate) -> Encoded | InputError:
    try:
        return engine.encode([text], truncate)[0]
    except InputError as error:
        return error
