"""What a call of a client is, and the list of calls in docs/clients.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finsent.inference.engine import Engine
from finsent.labels import LABELS
from tests.unit.models import TEXTS

DOCS = Path(__file__).parents[3] / "docs" / "clients.md"
START, END = "<!-- calls: `make clients` writes them -->", "<!-- end of calls -->"
TEXT, OTHER = TEXTS[0], TEXTS[1]
LONG = "up " * 100 + "down " * 100


@dataclass(frozen=True)
class World:
    """The service that is asked, and what it must answer."""

    url: str
    engine: Engine
    version: str
    generated: Callable[[], Any]  # the package of the generated client
    node: Callable[[], Path]  # folder with the clients in JavaScript

    def shares(self, text: str) -> dict[str, float]:
        """Probabilities by label, the best first."""
        [prediction] = self.engine.classify([text])
        return dict(sorted(prediction.probabilities.items(), key=lambda pair: -pair[1]))

    def logits(self, text: str) -> dict[str, float]:
        """Logits by label, the best first."""
        logits = dict(zip(LABELS, self.engine.logits([text])[0].tolist(), strict=True))
        return dict(sorted(logits.items(), key=lambda pair: -pair[1]))


@dataclass(frozen=True)
class Case:
    """A call of a client."""

    client: str
    call: str
    routes: tuple[str, ...]
    returns: str
    run: Callable[[World], None]


CASES: list[Case] = []


def case(client: str, call: str, routes: str, returns: str) -> Callable[[Any], Any]:
    """Add a call to the list.

    Args:
        routes: that the call asks, separated by commas.
    """

    def add(run: Callable[[World], None]) -> Callable[[World], None]:
        CASES.append(Case(client, call, tuple(routes.split(", ")), returns, run))
        return run

    return add


def near(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-4)


def ranked(ranking: list[Any], expected: dict[str, float]) -> None:
    """Check labels and scores of objects, and their order."""
    assert [item.label for item in ranking] == [*expected]
    assert [item.score for item in ranking] == near([*expected.values()])


def table() -> str:
    """The calls as Markdown."""
    lines = ["| client | call | asks | returns |", "|---|---|---|---|"]
    for case in sorted(
        CASES, key=lambda case: case.client.lower()
    ):  # calls of one keep their order
        routes = ", ".join(f"`{route}`" for route in case.routes)
        lines.append(f"| {case.client} | `{case.call}` | {routes} | {case.returns} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Return a page with the current table of calls."""
    before, _, after_start = text.partition(START)
    _, _, after = after_start.partition(END)
    return f"{before}{START}\n{table()}\n{END}{after}"
