"""The dataset in `provenance.json`, also as another version of finsent writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finsent.modeling.model_dir import PROVENANCE
from finsent.modeling.provenance import read_adopted_dataset, read_provenance
from finsent.modeling.trained_on import TrainedOn, read_trained_on

NAMED = {"name": "headlines", "version": "d5d5d5d5d5d5"}
SOURCE = {"source": "a.csv", "sha256": "00", "rows": 4}


def write_dataset(folder: Path, dataset: Any) -> Path:
    (folder / PROVENANCE).write_text(json.dumps({"max_length": 64, "dataset": dataset}))
    return folder


def test_keys_of_a_later_version_are_kept(tmp_path: Path) -> None:
    dataset = {**NAMED, "inputs": [{**SOURCE, "modified": 1}], "rules": {"salt": "s"}, "later": [1]}
    model = write_dataset(tmp_path, dataset)
    stored = read_provenance(model).model_dump(mode="json")["dataset"]
    assert stored == dataset
    assert read_trained_on(model) == TrainedOn(**NAMED)


@pytest.mark.parametrize(
    "other",
    [{"inputs": "a.csv"}, {"inputs": [{"source": "a.csv"}]}, {"rows": "many"}, {"splits": [8, 2]}],
)
def test_an_adopted_model_keeps_the_name_of_its_dataset(
    other: dict[str, Any], tmp_path: Path
) -> None:
    dataset = read_adopted_dataset(write_dataset(tmp_path, {**NAMED, **other}))
    assert dataset is not None, "rows of its training would count as unseen"
    assert dataset.model_dump(mode="json") == NAMED


@pytest.mark.parametrize(
    "dataset",
    [
        None,
        "headlines",
        [NAMED],
        {},
        {"name": "a"},
        {**NAMED, "name": "../a"},
        {**NAMED, "name": 1},
    ],
)
def test_a_dataset_without_a_name_is_not_known(dataset: Any, tmp_path: Path) -> None:
    assert read_adopted_dataset(write_dataset(tmp_path, dataset)) is None
