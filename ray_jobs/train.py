"""Fine-tune a backbone on a dataset version."""

from __future__ import annotations

from pathlib import Path

from finsent.data.versions.dataset import DatasetVersion
from finsent.ray_session import ray_session
from finsent.tracking.tracker import Tracker, tracked
from finsent.training.fine_tune import RECIPE, FineTuned, fine_tune, prepare_backbone
from ray_jobs._cli import Call, Job, main


def run(call: Call) -> FineTuned:
    """Run the job."""
    settings = call.settings
    version = DatasetVersion.find(
        settings.train.dataset, settings.workspace.versions(settings.data.name), "train.dataset"
    )
    backbone = prepare_backbone(settings)
    tracking = tracked(settings.tracking, call.run_dir, settings.for_records())
    with ray_session(settings), tracking as tracker:
        result = fine_tune(settings, backbone, version, call.run_dir)
        track_training(tracker, version, call.run_dir)
    return result


def track_training(tracker: Tracker, version: DatasetVersion, run_dir: Path) -> None:
    """Record the pictures of a training and of the rows that it used."""
    tracker.pictures("dataset", (version.path / "pictures").glob("*.png"))
    tracker.pictures("run", run_dir.glob("training.png"))


JOB = Job(
    name="train",
    summary="Fine-tune a BERT-like backbone on a dataset version with Ray Train (DDP). The epoch "
    "with the best macro-F1 on the validation split is kept in RUN_DIR/model, with a temperature "
    "that calibrates its confidence and the threshold below which it abstains. An "
    "interrupted run resumes from its last checkpoint when it is started again with the same "
    "run.name.",
    result=FineTuned,
    sections=("train", "model", "data", "evaluate", "engine", "storage", "run", "ray", "tracking"),
    run=run,
    resumes=True,
    fixed=RECIPE,
)

if __name__ == "__main__":
    main(JOB)
