"""Engines on the backends of exported models."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from finsent.export.config import ExportConfig
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine

ALL = {"onnxruntime-fp32", "onnxruntime-int8", "openvino-int8"}
EXACT = EngineConfig(threads=1).exact()


# A tiny model with random weights loses more in int8 than one that was trained.
ANY = ExportConfig(max_f1_loss=1, min_same_labels=0, max_score_change=1, min_same_abstentions=0)


def corpus(count: int = 60) -> list[str]:
    words = [
        "profit",
        "loss",
        "rose",
        "fell",
        "bank",
        "shares",
        "outlook",
        "the",
        "of",
        "in",
        "8",
        "%",
        "weak",
        "strong",
        "order",
        "May",
    ]
    draw = random.Random(5)
    return [" ".join(draw.choices(words, k=draw.randint(1, 60))) for _ in range(count)]


def engine(folder: Path, name: str, **config: Any) -> Engine:
    backend, _, precision = name.partition("-")
    config = {"threads": 2, "backend": backend, "precision": precision, **config}
    return Engine(folder, EngineConfig.model_validate(config))
