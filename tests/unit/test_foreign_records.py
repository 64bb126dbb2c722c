"""JSON of other tools: the known keys are parsed, other keys are ignored, damage is one line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.modeling.label_map import ModelConfigFile
from finsent.modeling.model_dir import TokenizerConfigFile
from finsent.modeling.provenance import DatasetOrigin, Provenance, read_adopted_dataset
from finsent.records import FileDigest
from ray_jobs._results import as_result


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"id2label": {"0": "up"}, "model_type": "bert"}))
    assert ModelConfigFile.read(file).id2label == {"0": "up"}


@pytest.mark.parametrize("content", ["[]", '"bert"', '{"id2label": ["up"]}'])
def test_damage_names_the_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"config\.json: .*\. The directory is damaged\."):
        ModelConfigFile.read(file)


@pytest.mark.parametrize(
    ("content", "is_plain"),
    [({"tokenizer_class": "PreTrainedTokenizerFast"}, True), ({"tokenizer_class": 7}, False)],
)
def test_the_class_of_a_tokenizer(tmp_path: Path, content: object, is_plain: bool) -> None:
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(content))
    assert TokenizerConfigFile.read(file).is_plain is is_plain


def test_a_provenance_keeps_keys_of_a_later_version_and_adds_none(tmp_path: Path) -> None:
    dataset = {"name": "news", "version": "0123456789ab", "regions": ["EU"]}
    content = {"max_length": 64, "dataset": dataset}
    assert Provenance.model_validate(content).model_dump(mode="json") == content
    (tmp_path / "provenance.json").write_text(json.dumps(content))
    adopted = read_adopted_dataset(tmp_path)
    assert adopted is not None and adopted.model_dump(mode="json") == dataset


@dataclass(frozen=True)
class Output:
    """A result with records inside."""

    dataset: DatasetOrigin | None
    files: tuple[FileDigest, ...]


def test_a_result_with_records_is_json() -> None:
    file = FileDigest(path="a.csv", sha256="0" * 64)
    output = Output(DatasetOrigin(name="news", version="1"), (file,))
    assert as_result(output) == {
        "dataset": {"name": "news", "version": "1"},
        "files": [{"path": "a.csv", "sha256": "0" * 64}],
    }
