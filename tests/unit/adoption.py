"""Adopted classifiers, and the refusals of `adopt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finsent.adoption.adopt import ForeignModel, adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.errors import InputError
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.modeling.model_folder import find_model_folder

EXACT = EngineConfig(threads=1, backend="torch", precision="fp32")
STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
STARS_MAP = {
    "1 star": "negative",
    "2 stars": "negative",
    "3 stars": "neutral",
    "4 stars": "positive",
    "5 stars": "positive",
}
ORDER = ("Positive", "Negative", "Neutral")
TEXTS = [
    "Profit rose.",
    "The company cut its outlook after a weak spring, and the shares fell 8 %.",
    "The meeting is on 4 May.",
    "order " * 30,
]


def opened(folder: Path, **config: Any) -> ForeignModel:
    """Open a directory as `adopt` does."""
    return open_foreign(
        str(folder),
        find_model_folder(str(folder), None, "SOURCE", ""),
        AdoptConfig.model_validate(config),
    )


def adopted(folder: Path, out: Path, **config: Any) -> tuple[ForeignModel, Engine]:
    """Adopt a model, and return the source model and an engine of the adopted model."""
    foreign = opened(folder, **config)
    adopt(foreign, out)
    return foreign, Engine(out, EXACT)


def refusal(folder: Path, **config: Any) -> str:
    """Return the error line of a model that `adopt` refuses."""
    with pytest.raises(InputError) as caught:
        adopt(opened(folder, **config), folder.parent / "out")
    text = str(caught.value)
    assert "\n" not in text
    assert not (folder.parent / "out" / "provenance.json").exists()
    return text


def plain(folder: Path, text: str) -> list[float]:
    """Return the probabilities that transformers computes from a directory."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(text, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        probabilities: list[float] = model(**inputs).logits.softmax(-1)[0].tolist()
    return probabilities
