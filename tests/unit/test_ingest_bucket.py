"""Dataset versions in a bucket of a real S3 server: look-up, reads, and what ingest refuses."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from finsent.adapters.ray_core import Node
from finsent.cluster import Cluster
from finsent.data.ingest.ingest import check_one_machine
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.storage import Location, StorageConfig
from tests.unit.test_diff import Row, write

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
    first = DatasetVersion.find(VERSIONS[0], versions, "train.dataset")
    assert first.origin == versions / VERSIONS[0]
    assert first.read("train")["text"].to_pylist() == ["Profit rose 0."]
    found = DatasetVersion.at(versions / VERSIONS[1])
    assert found is not None and found.path.name == VERSIONS[1]
    assert DatasetVersion.at(versions / "fedcba987654") is None
    first.mark_latest()
    assert DatasetVersion.find("latest", versions, "train.dataset") == first
    found.mark_latest()
    assert DatasetVersion.find("latest", versions, "train.dataset") == found
    assert pickle.loads(pickle.dumps(first)) == first
    with pytest.raises(InputError, match=rf"Versions in 's3://.*/news': {', '.join(VERSIONS)}"):
        DatasetVersion.find("none", versions, "train.dataset")


def test_latest_is_the_newest_version_where_none_is_marked(versions: Location) -> None:
    assert DatasetVersion.find("latest", versions, "x").path.name in VERSIONS
    with pytest.raises(InputError, match="no dataset version in 's3://"):
        DatasetVersion.find("latest", versions / "none", "x")


def test_an_ingest_of_several_machines_into_a_bucket_is_refused() -> None:
    nodes = [Node(str(number), "host", {"CPU": 4.0}) for number in range(2)]
    location = Location.at("s3://bucket/a")
    check_one_machine(Cluster(nodes[:1]), location)
    with pytest.raises(InputError, match=r"storage.root='s3://bucket/a': an ingest on 2 machines"):
        check_one_machine(Cluster(nodes), location)
