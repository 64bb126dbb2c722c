"""Jobs on machines that share nothing but `storage.root` in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.files import sha256_file
from finsent.training.checkpoint import list_checkpoints
from ray_jobs._cli import Finished, Result
from tests.commands import invoke_job
from tests.integration.ingested import FAR, story, write_csv

LABELS = ("positive", "neutral", "negative")


def checkpoint_names(result: Result) -> set[str]:
    """Return the names of a run's checkpoints."""
    run_dir = Path(result["run_dir"])
    return {checkpoint.folder.name for checkpoint in list_checkpoints(run_dir)}


@pytest.mark.cost(60, "trains, evaluates and publishes once, and resumes the training")
def test_every_machine_continues_where_another_ended(
    tmp_path: Path, s3_server: str, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The workers of the tests' Ray started without the variables of `s3_root`.
    host = s3_server.removeprefix("http://")
    root = f"{s3_root}?endpoint_override={host}&scheme=http&anonymous=true"
    rows = [(story(number, "."), LABELS[number % 3]) for number in range(120)]
    source = write_csv(tmp_path / "rows.csv", rows)

    def run(machine: str, job: str, *arguments: str) -> Finished:
        cache = f"storage.cache_dir={tmp_path / machine}"
        done = invoke_job(job, f"storage.root={root}", cache, "engine.backend=torch", *arguments)
        assert done.code == 0, done.err
        return done

    recipe = ("model.backbone=tiny", "train.epochs=2", "train.num_workers=1", "run.name=first")
    ingested = run("a", "ingest", f"data.sources=[{source}]", *FAR).result
    trained = run("b", "train", *recipe).result
    assert trained["dataset_version"] == ingested["dataset_version"]
    assert trained["run_dir"].startswith(str(tmp_path / "b"))

    run("c", "evaluate", "evaluate.model=run:first")
    published = run("d", "publish", "publish.model=latest", "publish.alias=news").result
    assert published["dataset_version"] == ingested["dataset_version"]
    listed = run("e", "registry", "list").result
    assert published["model_version"] in str(listed)
    classified = run("f", "classify", "classify.model=news", "Profit rose.")
    assert classified.out

    scored = run("g", "predict", "predict.model=alias:news", f"predict.input={source}").result
    assert scored["rows"] == len(rows)

    resumed = run("h", "train", *recipe).result
    weights = "model/model.safetensors"
    assert sha256_file(Path(resumed["run_dir"], weights)) == sha256_file(
        Path(trained["run_dir"], weights)
    )
    assert checkpoint_names(trained) == checkpoint_names(resumed)
    assert "has all of its 2 epochs" in run("i", "train", *recipe).err
