"""Tables of predictions for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from finsent.labels import LABELS
from finsent.scoring.texts import Text

if TYPE_CHECKING:
    from finsent.inference.engine import Prediction

_MAX_TEXT_CHARS = 200


def prediction_table(texts: Sequence[Text], predictions: Sequence[Prediction]) -> Table:
    """Return a table with one row per text."""
    table = Table("label", *LABELS, "abstains", "text")
    for text, prediction in zip(texts, predictions, strict=True):
        probabilities = (f"{prediction.probabilities[label]:.2f}" for label in LABELS)
        abstains = "yes" if prediction.abstained else ""
        table.add_row(prediction.label, *probabilities, abstains, _shortened(text.text))
    return table


def _shortened(text: str) -> str:
    return text if len(text) < _MAX_TEXT_CHARS else f"{text[: _MAX_TEXT_CHARS - 1]}…"
