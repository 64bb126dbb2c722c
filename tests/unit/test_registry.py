"""Published models: immutable, verified, found by alias; everything else is refused in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from finsent.errors import InputError
from finsent.evaluation.metrics import scores
from finsent.files import sha256_file
from finsent.labels import ID2LABEL, LABELS
from finsent.metrics_record import StoredMetrics, StoredScores
from finsent.modeling.provenance import read_provenance
from finsent.registry.card import model_card
from finsent.registry.card_usage import usage_section
from finsent.registry.gate import Clearance
from finsent.registry.model_version import ModelVersion
from finsent.registry.registry import Registry
from tests.unit.test_files import without_root

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


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def publish(tmp_path: Path, registry: Registry) -> Callable[[int], ModelVersion]:
    def publish_seed(seed: int = 0) -> ModelVersion:
        folder = tmp_path / f"model-{seed}"
        if not folder.is_dir():
            model_dir(folder, seed)
        return registry.publish(folder, METRICS, CODE)

    return publish_seed


Publish = Callable[[int], ModelVersion]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


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
        found = list(pool.map(lambda _: registry.publish(model, METRICS, CODE), range(8)))
    assert len({version.version for version in found}) == 1
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
    assert all(part in text for part in ("config.json", "labels", *id2label.values())), text
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
    assert len(modes) == 1, "whoever may read one file may read all"
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
            for place in places:
                place.chmod(0o555)
            with without_root():
                assert registry.get("champion").version == version
                text = refusal(lambda: registry.promote("champion", "challenger"))
        finally:
            for place in places:
                place.chmod(0o755)
        assert text.startswith("registry.root=")
        assert "Permission denied" in text
        assert registry.aliases() == {"champion": version}


# --- verifying ------------------------------------------------------------------------------------


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
    ("damage", "part"),
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
    registry: Registry, publish: Publish, damage: Callable[[Path], object], part: str
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
        assert part in text
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


# --- aliases --------------------------------------------------------------------------------------


def test_promote_and_rollback_walk_along_the_history(registry: Registry, publish: Publish) -> None:
    one, two, three = (publish(seed).version for seed in range(3))
    for version in (one, two, two, three):
        assert registry.promote(version, "champion").version == version
    registry.promote("champion", "stable")  # an alias may be promoted, too
    assert registry.aliases() == {"champion": three, "stable": three}
    for version in (two, one):
        assert registry.rollback("champion").version == version
        assert registry.get("champion").version == version
    assert "has no earlier version" in refusal(lambda: registry.rollback("champion"))
    assert registry.aliases() == {"champion": one, "stable": three}
    registry.promote(three, "champion")
    assert registry.rollback("champion").version == one


def test_alias_that_moved_since_the_gate_stays(registry: Registry, publish: Publish) -> None:
    """Of two publishers that were judged against one champion, one replaces it."""
    one, two, three = (publish(seed).version for seed in range(3))
    registry.promote(one, "champion", Clearance(None))
    text = refusal(lambda: registry.promote(two, "champion", Clearance(None)))
    assert text == (
        f"alias 'champion': the champion changed meanwhile, from none to {one}. Run again."
    )
    registry.promote(two, "champion", Clearance(one))
    text = refusal(lambda: registry.promote(three, "champion", Clearance(one)))
    assert f"from {one} to {two}. Run again." in text
    registry.promote(two, "champion", Clearance(one))  # of the same model
    assert registry.aliases() == {"champion": two}


def test_no_version_before_is_lost_when_many_promote(registry: Registry, publish: Publish) -> None:
    versions = [publish(seed).version for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda version: registry.promote(version, "champion"), versions):
            pass
    found = [registry.get("champion").version]
    found += [registry.rollback("champion").version for _ in versions[1:]]
    assert sorted(found) == sorted(versions)


def test_rollback_to_a_damaged_version_moves_nothing(registry: Registry, publish: Publish) -> None:
    one, two = publish(0), publish(1)
    for version in (one, two):
        registry.promote(version.version, "champion")
    (one.path / "config.json").unlink()
    assert "config.json is missing" in refusal(lambda: registry.rollback("champion"))
    assert registry.get("champion").version == two.version


def test_unknown_names_list_the_known_ones(registry: Registry, publish: Publish) -> None:
    assert "known: none, publish one first" in refusal(lambda: registry.get("champion"))
    version = publish(0).version
    registry.promote(version, "champion")
    for reference in ("champoin", "0123456789ab", "../aliases", f"../versions/{version}", ""):
        text = refusal(lambda wanted=reference: registry.get(wanted))  # type: ignore[misc]
        assert text.startswith(f"model {reference!r}: no such alias or version")
        assert f"known: champion, {version}" in text
    assert "alias 'chalenger': unknown (known: champion)" in refusal(
        lambda: registry.rollback("chalenger")
    )
    assert "no such alias" in refusal(lambda: registry.promote("nobody", "stable"))
    assert registry.aliases() == {"champion": version}


@pytest.mark.parametrize("alias", ["Champion", "", "a b", "../up", "1st", "a.b", "a\n", "x" * 64])
def test_alias_that_is_no_name_is_refused(registry: Registry, publish: Publish, alias: str) -> None:
    version = publish(0).version
    text = refusal(lambda: registry.promote(version, alias))
    assert text.startswith(
        f"alias {alias!r}: not a valid alias. Write small letters, digits, - or _"
    )
    assert registry.aliases() == {}


def test_alias_never_shadows_a_version(registry: Registry, publish: Publish) -> None:
    """`promote champion ID`, with the names the wrong way round, must not redirect the id."""
    versions = [publish(seed).version for seed in range(12)]
    letter = next(v for v in versions[1:] if v[0].isalpha())
    registry.promote(versions[0], "champion")
    assert letter in refusal(lambda: registry.promote("champion", letter))
    assert registry.get(letter).version == letter


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"version": null}'])
def test_damaged_alias_is_named(registry: Registry, publish: Publish, content: str) -> None:
    registry.promote(publish(0).version, "champion")
    path = registry.root / "aliases" / "champion.json"
    path.write_text(content)
    assert str(path) in refusal(lambda: registry.get("champion"))


# --- the rest -------------------------------------------------------------------------------------


def test_card_tells_what_the_model_is_and_how_good(publish: Publish) -> None:
    version = publish(0)
    card = (version.path / "README.md").read_text(encoding="utf-8")
    files = version.manifest.files[:-1]  # of the manifest, without the card
    usage, provenance = usage_section(version.path), read_provenance(version.path)
    assert card == model_card(version.version, provenance, METRICS, files, CODE, usage=usage)
    assert card.startswith("---\nlanguage: en\n")
    for part in (
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
        assert part in card


def test_registry_needs_no_ray_and_no_torch() -> None:
    script = "import finsent.registry.registry, sys; print({'ray', 'torch'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
