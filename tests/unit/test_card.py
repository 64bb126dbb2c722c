"""What a model card says of data, splits, base model, files and code; its head as hubs read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from finsent.data.config import DataConfig
from finsent.data.rows.split import SPLITS
from finsent.data.versions.dataset import DatasetVersion
from finsent.files import write_json
from finsent.metrics_record import StoredMetrics
from finsent.modeling.backbone import Backbone, resolve_backbone
from finsent.modeling.config import ModelConfig
from finsent.modeling.provenance import Provenance, backbone_origin
from finsent.registry.card import model_card
from finsent.registry.card_sections import split_sentences
from finsent.registry.version_manifest import VersionFile
from finsent.training.config import TrainConfig
from finsent.training.task import make_task
from tests.unit.datasets import input_content, manifest_content, split_content

BYTES = "ab" * 32
METRICS = StoredMetrics(
    rows=30, accuracy=0.8, macro_f1=0.7, mcc=0.6, auroc=None, ece=None, labels={}, baselines={}
)
PROVENANCE: dict[str, Any] = {
    "backbone": "someone/bert",
    "revision": "main",
    "max_length": 64,
    "base": {
        "hub_id": "someone/bert",
        "commit": "c0ffee",
        "license": "apache-2.0",
        "is_random": False,
        "files": [{"path": "model.safetensors", "sha256": BYTES}],
    },
    "dataset": {
        "name": "headlines",
        "version": "d5d5d5d5d5d5",
        "rows": 300,
        "inputs": [
            {"source": "a|b.csv", "rows": 200, "sha256": BYTES, "license": None, "hub_id": None},
            {"source": "o/n", "rows": 120, "sha256": BYTES, "license": "mit", "hub_id": "o/n"},
        ],
        "splits": {"train": 240, "validation": 30, "test": 30},
        "rules": {},
    },
    "config": {"seed": 7},
}
CODE = {"git_commit": "f00d", "git_dirty": True, "packages": {"torch": "2.13.0"}}
FILES = [
    VersionFile(path=name, bytes=9, sha256=BYTES) for name in ("config.json", "model.safetensors")
]


def rules(**data: Any) -> dict[str, Any]:
    """As the provenance of a model has them, from settings."""
    config = DataConfig(**data).model_dump(mode="json")
    return {key: config[key] for key in ("split", "salt", "near_duplicates", "conflicts")}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {},
            "The split of a row depends on a hash of its text (80/10/10 %, salt `finsent`): no "
            "text is in two splits. Near-duplicates (texts whose shingles have a Jaccard "
            "similarity of 0.75 or more) are in one split.",
        ),
        (
            {"split": {"group_by": "company"}},
            "The split of a row depends on a hash of its `company` (80/10/10 %, salt `finsent`): "
            "rows with the same value are in one split. No text is in two splits. Of "
            "near-duplicates (texts whose shingles have a Jaccard similarity of 0.75 or more) in "
            "two splits, the newer was removed.",
        ),
        (
            {
                "split": {
                    "time": {
                        "column": "date",
                        "validation_from": "2024-01-01",
                        "test_from": "2024-07-01",
                    }
                },
                "near_duplicates": {"enabled": False},
            },
            "The split of a row depends on its time in `date`: rows before 2024-01-01 train, rows "
            "from 2024-07-01 on test, rows in between validate. No text is in two splits. "
            "Near-duplicates were not looked for and may be in two splits.",
        ),
        (
            {"split": {"train": 0.5, "validation": 0.25, "test": 0.25}, "salt": "other"},
            "The split of a row depends on a hash of its text (50/25/25 %, salt `other`): no text "
            "is in two splits. Near-duplicates (texts whose shingles have a Jaccard similarity of "
            "0.75 or more) are in one split.",
        ),
    ],
)
def test_the_split_that_was_used(settings: dict[str, Any], said: str) -> None:
    assert split_sentences(rules(**settings)) == said


def card(**changes: Any) -> str:
    dataset = {**PROVENANCE["dataset"], "rules": rules()}
    provenance = {**PROVENANCE, "dataset": dataset, **changes}
    record = Provenance.model_validate(provenance)
    return model_card("0123456789ab", record, METRICS, FILES, CODE, "cc-by-4.0")


def test_sources_splits_base_files_and_code() -> None:
    text = card()
    for phrase in (
        "License: cc-by-4.0.",
        "`headlines`, version `d5d5d5d5d5d5`: 300 distinct rows after cleaning.",
        f"| `a\\|b.csv` | 200 | not stated | {BYTES} |",
        f"| `o/n` | 120 | mit | {BYTES} |",
        "| train | 240 | train |",
        "| validation | 30 | choose the epoch, fit temperature and threshold, check the exports |",
        "| test | 30 | report the figures below |",
        "`someone/bert` (`someone/bert` of the Hugging Face hub), revision `c0ffee`. License: "
        "apache-2.0.",
        f"## Files\n| file | SHA-256 |\n|---|---|\n| model.safetensors | {BYTES} |\n",
        "Published by commit `f00d` with uncommitted changes.\nPackages: torch 2.13.0.\nSeed 7;",
    ):
        assert phrase in text, phrase


def test_what_is_not_recorded_is_said_to_be() -> None:
    older = {"name": "headlines", "version": "d5d5d5d5d5d5", "rows": 300}
    text = card(dataset=older, base=None)
    assert "How the rows were split is not recorded." in text
    assert "`someone/bert`. License: not stated." in text


def test_the_head_is_what_hubs_read() -> None:
    head: Any = ModelCard(card()).data
    assert head.to_dict() | {"model-index": None} == {
        "language": "en",
        "license": "cc-by-4.0",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["finance", "sentiment", "finsent"],
        "base_model": "someone/bert",
        "datasets": ["o/n"],
        "metrics": ["accuracy", "f1"],
        "model-index": None,
    }
    assert head.model_name == "finsent-0123456789ab"
    results = {(r.metric_type, r.metric_name, r.metric_value) for r in head.eval_results}
    assert results == {("accuracy", "accuracy", 0.8), ("f1", "macro-F1", 0.7)}
    [where] = {(r.dataset_name, r.dataset_revision, r.dataset_split) for r in head.eval_results}
    assert where == ("headlines", "d5d5d5d5d5d5", "test")


def test_the_base_of_a_folder_and_of_a_hub(tiny: Path, tmp_path: Path) -> None:
    assert backbone_origin(resolve_backbone(ModelConfig(backbone="tiny"), tiny.parent)).is_random
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "tokenizer.json").write_text("{}")
    local = backbone_origin(Backbone(str(folder), str(folder))).model_dump(mode="json")
    empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert local == {
        "hub_id": None,
        "commit": None,
        "license": "mit",
        "is_random": False,
        "files": [{"path": "tokenizer.json", "sha256": empty}],
    }
    backbone = Backbone("someone/bert", "someone/bert", None, False, str(folder), "c0ffee")
    hub = backbone_origin(backbone).model_dump(mode="json")
    assert hub == {**local, "hub_id": "someone/bert", "commit": "c0ffee"}


def test_the_license_of_a_source_makes_another_version_only_where_it_is_given() -> None:
    from finsent.data.ingest.ingest import version_id
    from finsent.data.sources.files import find_sources

    plain, given = (
        DataConfig(sources=[{"uri": "sample", **more}]) for more in ({}, {"license": "mit"})
    )
    ids = [version_id(find_sources(config, Path()), config) for config in (plain, given)]
    assert ids[0] != ids[1]


def test_a_training_keeps_what_the_card_says_of_its_data(tiny: Path, tmp_path: Path) -> None:
    config = DataConfig(split={"group_by": "company"}).model_dump(mode="json")
    origin = {"bytes": 9, "sha256": BYTES, "rows": 7}
    manifest = manifest_content(
        name="headlines",
        version="d5d5d5d5d5d5",
        counts={**manifest_content()["counts"], "kept": 10},
        config=config,
        splits={name: split_content(rows) for name, rows in zip(SPLITS, (8, 1, 1), strict=True)},
        inputs=[
            input_content("o/n", **origin, uri="hf://o/n/all:train", license="mit"),
            input_content("a.csv", **origin, uri="/home/a.csv"),
        ],
    )
    del manifest["inputs"][1]["license"]  # of a version before licenses
    write_json(tmp_path / "manifest.json", manifest)
    backbone = Backbone("tiny", str(tiny))
    task = make_task(TrainConfig(), ModelConfig(), backbone, DatasetVersion(tmp_path))
    dataset = task.provenance.dataset
    assert dataset is not None
    assert [(file.license, file.hub_id) for file in dataset.inputs or ()] == [
        ("mit", "o/n"),
        (None, None),
    ]
    assert "/home" not in str(dataset)
    assert dataset.splits == {"train": 8, "validation": 1, "test": 1}
    text = model_card("0123456789ab", task.provenance, METRICS)
    assert "The split of a row depends on a hash of its `company`" in text
