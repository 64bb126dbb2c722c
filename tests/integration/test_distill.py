"""Self-distillation on a real Ray: models that have not seen wrong labels soften them."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from finsent.config import load
from finsent.data.ingest.ingest import ingest
from finsent.data.sources.files import find_sources
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.runs import MODEL_DIR
from finsent.settings import Settings
from finsent.training.checkpoint import best_checkpoint, list_checkpoints
from finsent.training.distill import FoldFilter
from finsent.training.standalone import main, write_spec
from finsent.training.task import Task, make_task
from tests.integration.ranks import run_ranks

WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}
ROWS, WRONG = 240, 24


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    folder = tmp_path_factory.mktemp("distill")
    wrong = set(random.Random(1).sample(range(ROWS), WRONG))
    with (folder / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("Sentence", "Sentiment"))
        for i in range(ROWS):
            says, label = LABELS[i % 3], LABELS[(i + (i in wrong)) % 3]
            writer.writerow((f"Unit {i}: {WORDS[says]}, then {WORDS[says]} once more", label))
    overrides = [
        f"data.sources=[{folder / 'rows.csv'}]",
        "data.near_duplicates.enabled=false",
        "data.label_noise.enabled=false",
    ]
    config = load(Settings, [], overrides).data
    return ingest(config, folder / "datasets", find_sources(config, folder / "hubs"))


def task(tiny: Path, version: DatasetVersion, *overrides: str) -> Task:
    recipe = [
        "train.epochs=6",
        "train.batch_size=8",
        "train.learning_rate=3e-3",
        "train.num_workers=1",
        "model.max_length=64",
        "train.distill_folds=2",
        "train.distill_epochs=5",
    ]
    settings = load(Settings, [], [*recipe, *overrides])
    return make_task(settings.train, settings.model, Backbone("tiny", str(tiny)), version)


@pytest.mark.cost(60, "two trainings under Ray Train")
def test_wrong_labels_are_softened(tiny: Path, version: DatasetVersion, tmp_path: Path) -> None:
    import ray.data

    from finsent.training.distill import distilled_rows
    from finsent.training.ray_trainer import fit
    from finsent.training.tokens import TOKENIZED_SCHEMA

    run_dir = tmp_path / "run"
    folds = run_dir / "folds"
    with pytest.raises(Killed):
        distilled_rows(task(tiny, version), version, folds, first_fold_only)
    assert [path.name for path in folds.glob("scored_*")] == ["scored_0"]
    result = fit(task(tiny, version), version, run_dir)  # resumes with the second fold
    assert result.best.macro_f1 > 0.7
    assert sorted(path.name for path in folds.iterdir()) == ["scored_0", "scored_1"]

    scored = ray.data.read_parquet([str(file) for file in folds.glob("*/*.parquet")])
    rows = {row["key"]: row for row in scored.take_all()}
    assert set(rows[next(iter(rows))]) == set(TOKENIZED_SCHEMA.names)
    train = version.read("train", ["key", "text", "label"])
    assert sorted(rows) == sorted(train["key"].to_pylist())  # each row once
    doubted: list[float] = []
    trusted: list[float] = []
    for key, text, label in zip(
        *(train[name].to_pylist() for name in train.column_names), strict=True
    ):
        target = np.array(rows[key]["target"])
        assert target.sum() == pytest.approx(1, abs=1e-5)
        assert target[LABELS.index(label)] >= 0.5 - 1e-6  # half of it is the row's own label
        (trusted if WORDS[label] in text else doubted).append(target[LABELS.index(label)])
    assert len(doubted) > 10
    assert np.mean(doubted) < 0.75 < np.mean(trusted)

    # A restarted job does not train them again.
    resumed = distilled_rows(task(tiny, version), version, folds, no_training)
    assert {row["key"]: row["target"] for row in resumed.take_all()} == {
        key: row["target"] for key, row in rows.items()
    }


class Killed(Exception):  # noqa: N818 - a name of what has happened
    """The job was killed."""


def first_fold_only(
    fold_task: Task, version: DatasetVersion, fold_filter: FoldFilter, run_dir: Path
) -> Path:
    """Train the first fold's model without Ray Train, the second is for Ray Train."""
    from finsent.training.ray_trainer import tokenize_split

    if fold_filter.fold > 0:
        raise Killed
    splits = {
        name: pa.concat_tables(
            tokenize_split(version, name, fold_task, chosen).iter_batches(batch_format="pyarrow")
        )
        for name, chosen in (("train", fold_filter), ("validation", None))
    }
    run_dir.mkdir(parents=True)
    run_ranks(1, main, write_spec(run_dir, fold_task, splits))
    return best_checkpoint(list_checkpoints(run_dir)).folder / MODEL_DIR


def no_training(*_: object) -> Path:
    raise AssertionError("a fold is trained again")


def test_folds_need_rows(tiny: Path, version: DatasetVersion, tmp_path: Path) -> None:
    from finsent.training.ray_trainer import fit

    with pytest.raises(InputError, match=r"train.distill_folds=50: the training split has \d+ row"):
        fit(task(tiny, version, "train.distill_folds=50"), version, tmp_path / "run")
