"""The main job: ingest, train, evaluate, export, publish."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from finsent.data.sources.files import find_sources
from finsent.data.versions.dataset import DatasetVersion
from finsent.export.export import wanted
from finsent.files import make_dir
from finsent.registry.publication import Refusal, attempt
from finsent.registry.registry import Registry
from finsent.runs import recorded_settings
from finsent.tracking.tracker import tracked
from finsent.training.capacity import check_capacity
from finsent.training.finished import drop_checkpoints
from ray_jobs import evaluate, export, ingest, publish, train
from ray_jobs._cli import Call, Job, RefusedError, Result, main
from ray_jobs._ray import ray_session
from ray_jobs._steps import Steps, past_run

_STEPS = ("ingest", "train", "evaluate", "export", "publish")


def run(call: Call) -> Result:
    """The job."""
    settings, run_dir = call.settings, call.run_dir
    # Whatever can fail early fails before Ray starts.
    wanted(settings.export)
    files = find_sources(settings.data, settings.sources_dir)
    make_dir(settings.datasets_dir, "storage.root")
    Registry(settings.registry_dir).check_writable()
    backbone = train.prepare(settings)
    past = past_run(settings.runs_dir, "pipeline", settings.model_dump(mode="json"))
    steps = Steps(_STEPS, past)
    with ExitStack() as stack:
        with ray_session(settings):
            check_capacity(settings.train)
            steps.begin("ingest")
            version = ingest.step(settings, files, run_dir)
            ingested = ingest.describe(version)
            title = steps.begin("train")
            recorded = recorded_settings(settings)
            tracker = stack.enter_context(tracked(settings.tracking, run_dir, recorded))
            trained = train.step(settings, backbone, version, run_dir, title)
            train.track(tracker, version, run_dir)
        steps.begin("evaluate")
        model_dir, out = Path(trained["model_dir"]), run_dir / "evaluation"
        measured = evaluate.step(evaluate.on_own_test_split(settings), model_dir, out)
        tracker.report(measured, out)
        steps.begin("export")
        exported = export.step(settings, model_dir)
        steps.begin("publish")
        publication = attempt(lambda: publish.step(settings, model_dir, run_dir / "comparison"))
        publication.track(tracker)
        if not settings.train.keep_checkpoints:
            drop_checkpoints(run_dir)
    steps.finish()
    published = publication.as_result()
    result = _result(version, ingested, trained, measured, exported, published)
    result["step_seconds"] = steps.seconds
    if isinstance(publication, Refusal):
        raise RefusedError(str(publication.error), result) from publication.error
    return result


def _result(
    version: DatasetVersion,
    ingested: Result,
    trained: Result,
    measured: Result,
    exported: Result,
    published: Result,
) -> Result:
    return {
        "dataset_version": version.version,
        "model_version": published["model_version"],
        "alias": published["alias"],
        "macro_f1": measured["macro_f1"],
        "macro_over": measured["macro_over"],
        "accuracy": measured["accuracy"],
        "split": "test",
        "baselines": {
            name: {key: found[key] for key in ("macro_f1", "accuracy")}
            for name, found in measured.get("baselines", {}).items()
        },
        "ece": measured["ece"],
        "intervals": {key: measured["intervals"][key] for key in ("macro_f1", "accuracy")},
        "temperature": trained["temperature"],
        "threshold": trained["threshold"],
        "gate": published["gate"],
        "exports": [name for name, one in exported["exports"].items() if one["refused"] is None],
        "validation_macro_f1": trained["macro_f1"],
        "epoch": trained["epoch"],
        "counts": ingested["counts"],
        "rows_per_second": trained["rows_per_second"],
        "padding_share": trained["padding_share"],
        "model_dir": trained["model_dir"],
        "version_dir": published["version_dir"],
    }


JOB = Job(
    name="pipeline",
    summary="The main job: ingest, train, evaluate on the test split, export, publish.",
    result="dataset_version, model_version, alias, macro_f1, macro_over (labels with rows), "
    "accuracy (test split), split, baselines, ece, intervals (95 %), temperature, threshold, gate "
    "(the comparison with the champion before), exports (kept ones), validation_macro_f1, epoch, "
    "counts, rows_per_second and padding_share (of training), model_dir, version_dir, "
    "step_seconds, run_dir, seconds",
    sections=(
        "data",
        "model",
        "train",
        "evaluate",
        "engine",
        "export",
        "publish",
        "registry",
        "storage",
        "run",
        "ray",
        "tracking",
    ),
    run=run,
    resumes=True,
)

if __name__ == "__main__":
    main(JOB)
