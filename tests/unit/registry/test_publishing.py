"""Published models: immutable, verified, complete or absent; their model cards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from finsent.files import sha256_file
from finsent.labels import LABELS
from finsent.metrics_record import StoredMetrics
from finsent.modeling.provenance import read_provenance
from finsent.registry.card import model_card
from finsent.registry.card_usage import usage_section
from finsent.registry.registry import Registry
from tests.unit.registry.model_dirs import CODE, METRICS, PROVENANCE, Publish, model_dir, refusal
from tests.unit.test_files import without_root


def left(root: Path) -> list[str]:
    """All files, and the staging directories."""
    return [p.name for p in root.rglob("*") if p.is_file() or p.name.startswith(".")]


# --- publishing -----------------------------------------------------------------------------------


def test_version_holds_the_model_and_what_it_was_made_from(
    tmp_path: Path, registry: Registry, publish: Publish
) -> None:
    version = publish(0)
    model = tmp_path / "model-0"
    for name in ("config.json", "model.safetensors", "tokenizer.json", "provenance.json"):
        assert sha256_file(version.path / name) == sha256_file(model / name)
    ours, theirs = (load_file(p / "model.safetensors") for p in (version.path, model))
    assert np.array_equal(ours["classifier.weight"], theirs["classifier.weight"])
    manifest = json.loads((version.path / "manifest.json").read_text())
    assert manifest["version"] == version.version == version.path.name
    assert manifest["labels"] == list(LABELS)
    assert manifest["metrics"] == METRICS.model_dump(mode="json")
    assert manifest["code"] == CODE
    assert (manifest["dataset"], manifest["backbone"]) == (PROVENANCE["dataset"], "small-bert")
    assert registry.get(version.version).path == version.path


def test_same_model_gets_the_same_id_wherever_it_lies(
    tmp_path: Path, registry: Registry, publish: Publish
) -> None:
    version = publish(0)
    written = {p.name: p.stat().st_mtime_ns for p in version.path.iterdir()}
    copy = shutil.copytree(tmp_path / "model-0", tmp_path / "elsewhere")
    assert registry.publish(copy, METRICS, {"git_commit": "1" * 40}).version == version.version
    assert {p.name: p.stat().st_mtime_ns for p in version.path.iterdir()} == written
    others = [publish(seed).version for seed in range(1, 6)]
    assert len({version.version, *others}) == 6
    assert [v.version for v in registry.versions()] == [version.version, *others]  # by age


def test_publishers_at_the_same_time_agree(registry: Registry, tmp_path: Path) -> None:
    model = model_dir(tmp_path / "model")
    with ThreadPoolExecutor(4) as pool:
        published_versions = list(
            pool.map(lambda _: registry.publish(model, METRICS, CODE), range(8))
        )
    assert len({version.version for version in published_versions}) == 1
    assert len(list((registry.root / "versions").iterdir())) == 1


def test_pickles_never_enter(tmp_path: Path, registry: Registry, publish: Publish) -> None:
    plain = publish(0).version
    model = tmp_path / "model-0"
    for name in ("pytorch_model.bin", "optimizer.pt", "args.pkl", "a.joblib", "sub/rng.pth", "c"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"\x80\x04.")
    shutil.rmtree(registry.root)
    version = registry.publish(model, METRICS, CODE)
    assert version.version == plain
    assert {p.suffix for p in version.path.rglob("*")} == {".json", ".safetensors", ".md"}


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "provenance.json"]
)
def test_incomplete_model_is_refused(tmp_path: Path, registry: Registry, name: str) -> None:
    model = model_dir(tmp_path / "model")
    (model / name).unlink()
    assert name in refusal(lambda: registry.publish(model, METRICS, CODE))
    assert left(registry.root) == []


@pytest.mark.parametrize(
    "id2label",
    [{"0": "positive", "1": "neutral", "2": "negative"}, {"0": "LABEL_0", "1": "LABEL_1"}],
)
def test_model_with_other_labels_is_refused(
    tmp_path: Path, registry: Registry, id2label: dict[str, str]
) -> None:
    model = model_dir(tmp_path / "model")
    (model / "config.json").write_text(json.dumps({"id2label": id2label}))
    text = refusal(lambda: registry.publish(model, METRICS, CODE))
    assert all(phrase in text for phrase in ("config.json", "labels", *id2label.values())), text
    assert left(registry.root) == []


def large_model(folder: Path) -> Path:
    """A model whose weights are large enough to be shared."""
    model = model_dir(folder)
    save_file({"classifier.weight": np.ones((512, 1024), np.float32)}, model / "model.safetensors")
    return model


def test_a_shared_model_takes_its_place_once(tmp_path: Path, registry: Registry) -> None:
    model = large_model(tmp_path / "model")
    (model / "model.safetensors").chmod(0o600)
    version = registry.publish(model, METRICS, CODE, share=True)
    assert (version.path / "model.safetensors").samefile(model / "model.safetensors")
    assert not (version.path / "config.json").samefile(model / "config.json")  # people edit those
    modes = {path.stat().st_mode & 0o777 for path in version.path.iterdir()}
    assert len(modes) == 1, "all files have the same permissions"
    assert not any(mode & 0o222 for mode in modes), "read-only"
    # Writers replace a run's files, which leaves those of the registry.
    weight = np.zeros((3, 4), np.float32)
    save_file({"classifier.weight": weight}, tmp_path / "new.safetensors")
    (tmp_path / "new.safetensors").replace(model / "model.safetensors")
    registry.get(version.version)


def test_a_model_is_copied_unless_it_may_be_shared(tmp_path: Path, registry: Registry) -> None:
    model = large_model(tmp_path / "model")
    version = registry.publish(model, METRICS, CODE)
    assert not (version.path / "model.safetensors").samefile(model / "model.safetensors")
    assert (model / "model.safetensors").stat().st_mode & 0o200


class Interrupting(StoredMetrics):
    """Publishing is interrupted when the card is written from these metrics."""

    @property
    def is_measured(self) -> NoReturn:
        raise KeyboardInterrupt


def test_interrupted_publishing_leaves_nothing(tmp_path: Path, registry: Registry) -> None:
    model = model_dir(tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        registry.publish(model, Interrupting(**dict(METRICS)), CODE)
    assert left(registry.root) == []
    assert registry.versions() == []
    registry.publish(model, METRICS, CODE).verify()


def test_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    registry = Registry(tmp_path / "file" / "registry")
    model = model_dir(tmp_path / "model")
    for action in (registry.check_writable, lambda: registry.publish(model, METRICS, CODE)):
        text = refusal(action)
        assert text.startswith(f"registry.root='{tmp_path}/file/registry")
        assert "Set registry.root to a directory that you may write" in text


def test_others_may_read_a_registry_that_they_may_not_write(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        registry = Registry(Path(folder) / "registry")
        version = registry.publish(model_dir(tmp_path / "model"), METRICS, CODE).version
        registry.promote(version, "champion")
        places = [Path(folder), registry.root, *registry.root.glob("*")]
        try:
            for version_dir in places:
                version_dir.chmod(0o555)
            with without_root():
                assert registry.get("champion").version == version
                text = refusal(lambda: registry.promote("champion", "challenger"))
        finally:
            for version_dir in places:
                version_dir.chmod(0o755)
        assert text.startswith("registry.root=")
        assert "Permission denied" in text
        assert registry.aliases() == {"champion": version}


# --- the rest -------------------------------------------------------------------------------------


def test_card_tells_what_the_model_is_and_how_good(publish: Publish) -> None:
    version = publish(0)
    card = (version.path / "README.md").read_text(encoding="utf-8")
    files = version.manifest.files[:-1]  # of the manifest, without the card
    usage, provenance = usage_section(version.path), read_provenance(version.path)
    assert card == model_card(version.version, provenance, METRICS, files, CODE, usage=usage)
    assert card.startswith("---\nlanguage: en\n")
    for phrase in (
        f"# Financial sentiment {version.version}",
        "negative, neutral, positive",
        "`small-bert`",
        "64 tokens",
        "`headlines`, version `d5d5d5d5d5d5`: 1234 distinct rows",
        "test split (30 rows)",
        "| this model | 0.833 | 0.833 | 0.750 | - | - |",
        "| majority | 0.167 | 0.333 | - | - | - |",
        "| negative | 0.800 | 0.800 | 0.800 | 10 |",
        "| neutral | 0.900 | 0.900 | 0.900 | 10 |",
        "Not investment advice",
    ):
        assert phrase in card


def test_registry_needs_no_ray_and_no_torch() -> None:
    script = "import finsent.registry.registry, sys; print({'ray', 'torch'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
