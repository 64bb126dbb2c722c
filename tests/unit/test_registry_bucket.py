"""A registry in a bucket of a real S3 server: the same answers as from a directory."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.registry.calibrations import Calibrations
from finsent.registry.model_handle import Model
from finsent.registry.registry import Registry
from finsent.storage import Location, StorageConfig
from finsent.workspace import Workspace
from tests.unit.models import domain_content
from tests.unit.registry.model_dirs import CODE, METRICS, model_dir


@pytest.fixture
def config(tmp_path: Path) -> StorageConfig:
    return StorageConfig(cache_dir=str(tmp_path / "cache"), retry_seconds=10)


@pytest.fixture
def workspace(s3_root: str, config: StorageConfig) -> Workspace:
    return Workspace.at(s3_root, None, config)


@pytest.fixture
def registry(workspace: Workspace) -> Registry:
    return Registry(workspace.registry)


@pytest.mark.cost(1, "publishes, promotes and rolls back over HTTP")
def test_versions_and_aliases_are_those_of_a_directory(
    registry: Registry, workspace: Workspace, tmp_path: Path
) -> None:
    assert not registry.exists() and registry.versions() == []
    first = registry.publish(model_dir(tmp_path / "a", 0), METRICS, CODE)
    second = registry.publish(model_dir(tmp_path / "b", 1), METRICS, CODE, license="mit")
    assert registry.publish(tmp_path / "a", METRICS, CODE).version == first.version
    assert registry.exists()
    assert [v.version for v in registry.versions()] == [first.version, second.version]
    assert [v.manifest.license for v in registry.versions()] == [None, "mit"]
    local = Registry(tmp_path / "local").publish(tmp_path / "a", METRICS, CODE)
    assert first.version == local.version
    own = {p.name: p.read_bytes() for p in first.path.iterdir() if p.name != "manifest.json"}
    assert own == {p.name: p.read_bytes() for p in local.path.iterdir() if p.name in own}
    registry.promote(first.version, "champion")
    registry.promote(second.version, "champion")
    assert registry.aliases() == {"champion": second.version}
    assert registry.get("champion").path == second.path
    assert registry.rollback("champion").version == first.version
    with pytest.raises(InputError, match="has no earlier version"):
        registry.rollback("champion")
    with pytest.raises(InputError, match="no such alias or version in 's3://bucket-"):
        registry.get("challenger")
    model = Model.find("alias:champion", workspace, "model")
    assert (model.folder, model.version) == (first.path, first.version)
    assert Model.find(str(first.path), workspace, "model").version == first.version
    assert registry.version_at(tmp_path / "a") is None


def test_publishers_at_the_same_time_agree(
    registry: Registry, s3_root: str, tmp_path: Path
) -> None:
    model = model_dir(tmp_path / "model")

    def publish(number: int) -> str:
        config = StorageConfig(cache_dir=str(tmp_path / f"cache-{number}"), retry_seconds=10)
        place = Location.at(f"{s3_root}/registry", "registry.root", config)
        return Registry(place).publish(model, METRICS, CODE | {"by": number}).version

    with ThreadPoolExecutor(3) as pool:
        versions = list(pool.map(publish, range(3)))
    assert len(set(versions)) == 1
    keys = [info.key for info in registry.location.store.list_objects("versions")]
    attempts = {key.split("/")[2] for key in keys} - {"tree.json"}
    assert len(attempts) == 1
    registry.get(versions[0])


def test_a_changed_file_is_refused_and_never_loaded(
    registry: Registry, config: StorageConfig, tmp_path: Path
) -> None:
    version = registry.publish(model_dir(tmp_path / "a"), METRICS, CODE).version
    store = registry.location.store
    (key,) = [i.key for i in store.list_objects("versions") if i.key.endswith(".safetensors")]
    store.put(key, b"foreign")
    shutil.rmtree(tmp_path / "cache")
    hasty = config.replaced(retry_seconds=0.3, cache_dir=str(tmp_path / "other"))
    other = Registry(Location.at(registry.location.address, "registry.root", hasty))
    with pytest.raises(InputError, match="do not match their SHA-256"):
        other.get(version)


def test_damaged_records_are_named(registry: Registry) -> None:
    registry.location.store.put("aliases/champion.json", b"{")
    with pytest.raises(InputError, match=r"s3://.*/aliases/champion.json: not valid JSON"):
        registry.aliases()


def test_calibrations_are_replaced_by_compare_and_swap(registry: Registry) -> None:
    calibrations = Calibrations(registry.location, "0123456789ab")
    first = calibrations.publish(DomainCalibration.of(domain_content()))
    assert calibrations.publish(DomainCalibration.of(domain_content())) == first
    second = calibrations.publish(DomainCalibration.of(domain_content(temperature=3.0)))
    assert (second.previous, calibrations.names()) == ((first.id,), ["tweets"])
    assert calibrations.get("tweets", "x").temperature == 3.0
    old = calibrations.location.store.read(f"previous/tweets-{first.id}.json")
    assert old is not None and json.loads(old.data)["temperature"] == 2.0
    with pytest.raises(InputError, match=r"x='none': .*known: tweets"):
        calibrations.get("none", "x")
