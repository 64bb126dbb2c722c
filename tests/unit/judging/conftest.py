"""A storage root with two measured runs, for the tests of jobs that judge models."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from finsent.data.versions.dataset import DatasetVersion
from finsent.files import read_json, write_json
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_tokenizer, new_classifier, save_classifier
from finsent.modeling.provenance import Provenance
from finsent.training.fine_tune import calibrate_model
from ray_jobs import evaluate
from tests.threads import compute_threads
from tests.unit.dataset_versions import Row, write
from tests.unit.judging.worlds import NAMES, World, noisy_rows


def train_tiny(
    tiny: Path, rows: list[Row], mislabeled_share: float, folder: Path, dataset: str
) -> None:
    """Train the tiny BERT for some passes, with a share of the negative rows labeled as neutral."""
    tokenizer = load_tokenizer(str(tiny))
    model = new_classifier(Backbone("tiny", str(tiny)), seed=1)
    random = np.random.default_rng(0)
    truth = np.array([LABELS.index(row.label) for row in rows])
    truth[(truth == 0) & (random.random(len(truth)) < mislabeled_share)] = 1
    inputs = tokenizer([row.text for row in rows], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in np.array_split(random.permutation(np.tile(np.arange(len(rows)), 8)), 150):
        inputs_of_batch = {name: values[batch] for name, values in inputs.items()}
        model(**inputs_of_batch, labels=torch.tensor(truth[batch])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():  # logits three times too large
        for parameter in model.get_submodule("classifier").parameters():
            parameter.mul_(3)
    provenance = {
        "max_length": 48,
        "backbone": "tiny",
        "dataset": {"name": "tests", "version": dataset, "rows": len(rows)},
    }
    save_classifier(model, tokenizer, folder, Provenance.model_validate(provenance))


@pytest.fixture(scope="session")
@compute_threads(1)
def built(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a storage root with a dataset version and the measured runs `good` and `poor`."""
    world = World(tmp_path_factory.mktemp("world"))
    rows = {
        name: noisy_rows(n, name, i)
        for i, (name, n) in enumerate([("train", 300), ("validation", 150), ("test", 200)])
    }
    path = world.root / "datasets" / "tests" / "0123456789ab"
    write(path, [row for split in rows.values() for row in split])
    manifest = read_json(path / "manifest.json")
    write_json(path / "manifest.json", manifest | {"noise_ceiling": {"rows_in": 0.9, "kept": 1.0}})
    for name, mislabeled_share in NAMES.items():
        train_tiny(tiny, rows["train"], mislabeled_share, world.run(name) / "model", path.name)
        calibrate_model(world.settings(), world.run(name) / "model", DatasetVersion.open(path))
        evaluate.step(world.settings(), world.run(name) / "model", world.run(name) / "evaluation")
    return world


@pytest.fixture
def world(built: World) -> Iterator[World]:
    """Return the storage root. Delete its registry after the test."""
    yield built
    shutil.rmtree(built.root / "registry", ignore_errors=True)


@pytest.fixture
def copy_run(world: World) -> Iterator[Callable[[str, str, list[Row]], Path]]:
    """Copy a run as one that was trained on another dataset version, with these rows."""
    folders: list[Path] = []

    def copy(name: str, new: str, rows: list[Row]) -> Path:
        dataset, run = world.root / "datasets/tests" / f"{len(folders):012x}", world.run(new)
        write(dataset, rows)
        shutil.copytree(world.run(name), run)
        provenance = read_json(run / "model/provenance.json")
        provenance["dataset"]["version"] = dataset.name
        write_json(run / "model/provenance.json", provenance)
        folders.extend([dataset, run])
        return dataset

    yield copy
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
