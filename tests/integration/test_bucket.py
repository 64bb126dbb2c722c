"""Dataset versions in a bucket: ingest and look-up are those of a directory."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from finsent.config import load
from finsent.data.ingest.ingest import find_existing, ingest
from finsent.data.sources.files import find_sources
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.records import FileDigest
from finsent.settings import Settings

ROWS = "Sentence,Sentiment\n" + "".join(
    f"Number {number} of the unit {verb} in spring,{label}\n"
    for number in range(120)
    for verb, label in (("rose", "positive"), ("fell", "negative"), ("stayed", "neutral"))
)


def settings(folder: Path, root: str) -> Settings:
    source = folder / "rows.csv"
    source.write_text(ROWS)
    return load(
        Settings,
        [],
        [
            f"data.sources=[{{uri: '{source}'}}]",
            "data.label_noise.enabled=false",
            "data.near_duplicates.enabled=false",
            f"storage.root={root}",
            f"storage.cache_dir={folder / 'cache'}",
        ],
    )


def made(config: Settings) -> DatasetVersion:
    files = find_sources(config.data, config.workspace.sources_dir)
    return ingest(config.data, config.workspace.versions(config.data.name), files)


def tables(version: DatasetVersion) -> list[FileDigest]:
    """Return the digests of a version's tables. Its report has the time."""
    return [file for file in version.manifest.digests if file.path.endswith(".parquet")]


@pytest.mark.cost(20, "ingests the same rows into a directory and into a bucket")
def test_a_version_in_a_bucket_is_that_of_a_directory(tmp_path: Path, s3_root: str) -> None:
    local, remote = (settings(tmp_path, root) for root in (str(tmp_path / "root"), s3_root))
    versions = remote.workspace.versions(remote.data.name)
    with pytest.raises(InputError, match="no dataset version in 's3://bucket-"):
        DatasetVersion.find("latest", versions, "train.dataset")
    ours, theirs = made(remote), made(local)
    assert ours.version == theirs.version
    assert tables(ours) == tables(theirs)
    for name in ("latest", ours.version, f"version:{ours.version}"):
        version = DatasetVersion.find(name, versions, "train.dataset")
        assert (version.path, version.origin) == (ours.path, versions / ours.version)
    with pytest.raises(InputError, match=f"no such dataset version.*{ours.version}"):
        DatasetVersion.find("other", versions, "train.dataset")
    files = find_sources(remote.data, remote.workspace.sources_dir)
    reused = find_existing(remote.data, versions, files)
    assert reused is not None and reused.path == ours.path
    assert pickle.loads(pickle.dumps(ours)) == ours
    staged = [path.name for path in (tmp_path / "cache").iterdir()]
    assert sorted(staged) == ["locks", "trees"]
