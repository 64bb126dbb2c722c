"""Two jobs with one run.name and a bucket: the second is refused, and a lease ends with its job."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.labels import LABELS
from finsent.storage import Location, StorageConfig
from finsent.storage.lease import hold_lease
from ray_jobs._cli import Finished
from tests.commands import invoke_job


@pytest.mark.cost(5, "ingests a small file into a bucket")
def test_a_run_name_belongs_to_one_process(
    tmp_path: Path, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"Unit {number} rose in spring,{LABELS[number % 3]}" for number in range(90)]
    (tmp_path / "rows.csv").write_text("\n".join(["Sentence,Sentiment", *lines]))
    cache = tmp_path / "cache"

    def ingest() -> Finished:
        return invoke_job(
            "ingest",
            "data.sources=[rows.csv]",
            "data.label_noise.enabled=false",
            f"storage.root={s3_root}",
            f"storage.cache_dir={cache}",
            "run.name=rows",
        )

    config = StorageConfig(cache_dir=str(cache))
    store = (Location.at(s3_root, config=config) / "runs").store
    with hold_lease(store, "rows/lease.json", "run.name='rows'", seconds=0.5):
        refused = ingest()
        assert refused.code == 2
        assert refused.err.splitlines()[-1].startswith("error: run.name='rows': a process on ")
        assert store.list_folders("") == ["rows"]
        assert [info.key for info in store.list_objects("rows")] == ["rows/lease.json"]
    assert ingest().code == 0
    assert store.read("rows/run.json") is not None
    assert store.read("rows/lease.json") is None
