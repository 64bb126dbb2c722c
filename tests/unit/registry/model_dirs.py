"""Directories of small models, and what the registry keeps of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from finsent.errors import InputError
from finsent.evaluation.metrics import scores
from finsent.labels import ID2LABEL
from finsent.metrics_record import StoredMetrics, StoredScores
from finsent.registry.model_version import ModelVersion

METRICS = StoredMetrics(
    **dict(scores(np.array([[8, 1, 1], [0, 9, 1], [2, 0, 8]]))),
    baselines={"majority": StoredScores(macro_f1=0.1667, accuracy=0.3333)},
)
CODE = {"git_commit": "0" * 40, "git_dirty": False, "packages": {}}
PROVENANCE = {
    "backbone": "small-bert",
    "max_length": 64,
    "dataset": {"name": "headlines", "version": "d5d5d5d5d5d5", "rows": 1234},
    "config": {"epochs": 3},
}


def model_dir(folder: Path, seed: int = 0) -> Path:
    """A model in the layout of `save_classifier`, with one small tensor."""
    folder.mkdir(parents=True)
    weight = np.random.default_rng(seed).random((3, 4), dtype=np.float32)
    save_file({"classifier.weight": weight}, folder / "model.safetensors")
    config = {"model_type": "bert", "id2label": {str(i): name for i, name in ID2LABEL.items()}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    return folder


Publish = Callable[[int], ModelVersion]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)
