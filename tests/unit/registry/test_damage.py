"""Damaged model versions are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from finsent.files import sha256_file
from finsent.registry.registry import Registry
from tests.unit.registry.model_dirs import CODE, METRICS, Publish, model_dir, refusal


def unlock(folder: Path) -> None:
    """Make a version's files writable, as only a fault does."""
    for path in folder.iterdir():
        path.chmod(0o644)


def edit(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def swap_weights_and_digest(path: Path) -> None:
    save_file({"classifier.weight": np.zeros((3, 4), np.float32)}, path / "model.safetensors")
    files = json.loads((path / "manifest.json").read_text())["files"]
    for entry in files:
        entry["sha256"] = sha256_file(path / entry["path"])
    edit(path / "manifest.json", files=files)


def flip_a_bit(path: Path) -> None:
    """As many bytes as before: the size says nothing."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "phrase"),
    [
        (lambda p: (p / "model.safetensors").write_bytes(b"x"), "model.safetensors does not match"),
        (lambda p: flip_a_bit(p / "model.safetensors"), "model.safetensors does not match"),
        (lambda p: (p / "README.md").write_text("Best!"), "README.md does not match its SHA-256"),
        (lambda p: (p / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda p: (p / "extra.bin").write_bytes(b""), "extra.bin is not in the manifest"),
        (lambda p: shutil.copytree(p, p / "sub"), "sub/README.md is not in the manifest"),
        (swap_weights_and_digest, "its manifest describes other files"),
        (lambda p: edit(p / "manifest.json", labels=["up", "down"]), "['up', 'down']"),
        (lambda p: edit(p / "manifest.json", labels=None), "labels are None"),
        (lambda p: edit(p / "manifest.json", files=None), "manifest"),
        (lambda p: edit(p / "manifest.json", schema_version=2), "schema_version: Input"),
        (lambda p: (p / "manifest.json").write_text("[]"), "the file: Input should be"),
        (lambda p: (p / "manifest.json").write_text('{"sch'), "not valid JSON"),
    ],
)
def test_damaged_version_is_never_handed_out(
    registry: Registry, publish: Publish, damage: Callable[[Path], object], phrase: str
) -> None:
    good, bad = publish(0), publish(1)
    registry.promote(bad.version, "challenger")
    unlock(bad.path)
    damage(bad.path)
    for action in (
        lambda: registry.get(bad.version),
        lambda: registry.get("challenger"),
        lambda: registry.promote("challenger", "champion"),
    ):
        text = refusal(action)
        assert phrase in text
        assert bad.version in text
    assert registry.aliases() == {"challenger": bad.version}
    assert registry.get(good.version).version == good.version


def test_damaged_version_can_be_published_again_as_told(publish: Publish) -> None:
    path = publish(0).path
    unlock(path)
    (path / "config.json").write_text("{}")
    assert f"delete {str(path)!r}" in refusal(lambda: publish(0))
    shutil.rmtree(path)
    publish(0).verify()


def test_damaged_version_does_not_hide_the_others(registry: Registry, publish: Publish) -> None:
    good, bad = publish(0), publish(1)
    unlock(bad.path)
    (bad.path / "manifest.json").write_text("{}")
    text = refusal(lambda: registry.get("nobody"))
    assert "'nobody': no such alias or version" in text
    assert good.version in text


def test_license_that_an_existing_version_does_not_get_is_a_warning(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_dir(tmp_path / "model")
    version = registry.publish(model, METRICS, CODE, license="mit")
    registry.publish(model, METRICS, CODE, license="mit")
    registry.publish(model, METRICS, CODE)
    assert not caplog.messages
    again = registry.publish(model, METRICS, CODE, license="apache-2.0")
    assert (again.version, again.manifest.license) == (version.version, "mit")
    [line] = caplog.messages
    assert line.startswith("publish.license='apache-2.0': is not applied, as the version")
    assert f"Delete {str(version.path)!r} and publish again" in line


def test_published_version_has_its_own_id(registry: Registry, publish: Publish) -> None:
    version = publish(0)
    assert registry.version_id(version.path) == version.version
    again = registry.publish(version.path, METRICS, CODE)
    assert again.version == version.version
    other = Registry(registry.root.parent / "other").publish(version.path, METRICS, CODE)
    assert other.version == version.version  # verified: its manifest does not list itself
