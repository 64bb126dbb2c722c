"""A training whose machine is lost resumes on another one from the checkpoints in the bucket.

tests/unit/resume/test_checkpoint_mirror.py kills a run without Ray,
tests/integration/test_bucket_jobs.py continues a run on other machines.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from finsent.files import sha256_file
from finsent.storage import Location, StorageConfig
from tests.commands import run_job, start_job, wait_until
from tests.integration.ingested import FAR, story, write_csv

LABELS = ("positive", "neutral", "negative")
RECIPE = (
    "model.backbone=tiny",
    "train.epochs=12",
    "train.batch_size=8",
    "train.num_workers=1",
    "train.checkpoint_every_steps=3",
)


def test_a_lost_machine_costs_no_step_of_the_bucket(tmp_path: Path, s3_root: str) -> None:
    rows = [(story(number, "."), LABELS[number % 3]) for number in range(120)]
    source = write_csv(tmp_path / "rows.csv", rows)

    def arguments(machine: str, *others: str) -> tuple[str, ...]:
        cache = f"storage.cache_dir={tmp_path / machine}"
        return (f"storage.root={s3_root}", cache, "engine.backend=torch", *others)

    def train(machine: str, name: str) -> Path:
        done = run_job("train", *arguments(machine, *RECIPE, f"run.name={name}"), cwd=tmp_path)
        assert done.code == 0, done.err
        if name == "killed":
            assert "continues the run of a process on" in done.err
        return Path(done.result["run_dir"])

    ingest = arguments("a", f"data.sources=[{source}]", *FAR)
    assert run_job("ingest", *ingest, cwd=tmp_path).code == 0
    config = StorageConfig(cache_dir=str(tmp_path / "look"))
    trees = (Location.at(s3_root, config=config) / "runs/killed").trees
    with start_job("train", *arguments("a", *RECIPE, "run.name=killed"), cwd=tmp_path) as process:
        wait_until(lambda: bool(trees.names("checkpoints")), 120, "a checkpoint in the bucket")
        driver = psutil.Process(process.pid)
        for lost in (driver, *driver.children(recursive=True)):
            lost.kill()
    assert trees.names("checkpoints")
    resumed, undisturbed = train("b", "killed"), train("c", "undisturbed")
    weights = "model/model.safetensors"
    assert sha256_file(resumed / weights) == sha256_file(undisturbed / weights)
    assert {*trees.names("checkpoints")} == {p.name for p in resumed.glob("checkpoint_*_*[0-9]")}
