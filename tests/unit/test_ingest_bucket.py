"""Dataset versions in a bucket of a real S3 server: look-up, reads and ingest."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import ray

from finsent.config import load
from finsent.data.ingest.ingest import ingest
from finsent.data.sources.files import find_sources
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.settings import Settings
from finsent.storage import Location, StorageConfig
from tests.unit.dataset_versions import Row, write

VERSIONS = ("0123456789ab", "123456789abc")


@pytest.fixture
def versions(s3_root: str, tmp_path: Path) -> Location:
    """The versions of a dataset, as an ingest publishes them."""
    config = StorageConfig(cache_dir=str(tmp_path / "cache"), retry_seconds=10)
    location = Location.at(s3_root, "storage.root", config) / "datasets" / "news"
    for number, name in enumerate(VERSIONS):
        with location.trees.publish(name) as staging:
            staging.rmdir()
            write(staging, [Row(f"Profit rose {number}.", "positive", "train")])
    return location


@pytest.mark.cost(1, "publishes two versions over HTTP")
def test_versions_are_found_and_read(versions: Location) -> None:
    first_version = DatasetVersion.find(VERSIONS[0], versions, "train.dataset")
    assert first_version.origin == versions / VERSIONS[0]
    assert first_version.read("train")["text"].to_pylist() == ["Profit rose 0."]
    version = DatasetVersion.at(versions / VERSIONS[1])
    assert version is not None and version.path.name == VERSIONS[1]
    assert DatasetVersion.at(versions / "fedcba987654") is None
    first_version.mark_latest()
    assert DatasetVersion.find("latest", versions, "train.dataset") == first_version
    version.mark_latest()
    assert DatasetVersion.find("latest", versions, "train.dataset") == version
    assert pickle.loads(pickle.dumps(first_version)) == first_version
    with pytest.raises(InputError, match=rf"Versions in 's3://.*/news': {', '.join(VERSIONS)}"):
        DatasetVersion.find("none", versions, "train.dataset")


def test_latest_is_the_newest_version_where_none_is_marked(versions: Location) -> None:
    assert DatasetVersion.find("latest", versions, "x").path.name in VERSIONS
    with pytest.raises(InputError, match="no dataset version in 's3://"):
        DatasetVersion.find("latest", versions / "none", "x")


@pytest.mark.cost(5, "ingests the same rows into a directory and into a bucket")
def test_a_small_file_is_ingested_into_a_bucket_without_ray(s3_root: str, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    lines = [f"Unit {number} rose in spring,{LABELS[number % 3]}" for number in range(90)]
    source.write_text("\n".join(["Sentence,Sentiment", *lines]))
    digests, was_running = [], ray.is_initialized()
    for root in (str(tmp_path / "root"), s3_root):
        overrides = [
            f"data.sources=[{{uri: '{source}'}}]",
            "data.label_noise.enabled=false",
            f"storage.root={root}",
            f"storage.cache_dir={tmp_path / 'cache'}",
        ]
        settings = load(Settings, [], overrides)
        files = find_sources(settings.data, settings.workspace.sources_dir)
        version = ingest(settings.data, settings.workspace.versions(settings.data.name), files)
        tables = [file for file in version.manifest.digests if file.path.endswith(".parquet")]
        digests.append((version.version, tables))
    assert digests[0] == digests[1]
    assert ray.is_initialized() == was_running
