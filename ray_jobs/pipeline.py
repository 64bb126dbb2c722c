"""Ingest, train, evaluate, export and publish in one command."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from finsent.data.ingest.results import IngestResult
from finsent.data.sources.files import find_sources
from finsent.evaluation.results import EvaluateResult
from finsent.export.exporter import configured_forms
from finsent.metrics_record import Intervals
from finsent.ray_session import ray_session
from finsent.registry.gate import Gate
from finsent.registry.publication import PublicationSummary, Refusal, attempt
from finsent.registry.registry import Registry
from finsent.steps import Steps, past_run
from finsent.tracking.tracker import tracked
from finsent.training.capacity import check_capacity
from finsent.training.fine_tune import RECIPE, FineTuned, fine_tune, prepare_backbone
from finsent.training.finished_run import drop_checkpoints
from ray_jobs import evaluate, export, ingest, publish
from ray_jobs._cli import Call, Job, RefusedError, main
from ray_jobs.train import track_training

_STEPS = ("ingest", "train", "evaluate", "export", "publish")


@dataclass(frozen=True)
class PipelineResult:
    """Result of the job. Figures are of the test split where nothing else is stated."""

    dataset_version: str
    model_version: Annotated[str | None, "null: refused"]
    alias: str | None
    macro_f1: float
    macro_over: Annotated[tuple[str, ...], "labels with rows"]
    accuracy: float
    split: str
    baselines: Annotated[dict[str, dict[str, float | None]], "macro_f1 and accuracy by name"]
    ece: float | None
    intervals: Annotated[Intervals, "95 %"]
    temperature: float | None
    threshold: float | None
    gate: Annotated[Gate | None, "the comparison with the champion before"]
    exports: Annotated[list[str], "kept ones"]
    validation_macro_f1: float
    epoch: int
    counts: dict[str, int]
    rows_per_second: Annotated[float, "of training"]
    padding_share: Annotated[float, "of training"]
    model_dir: str
    version_dir: str | None
    step_seconds: dict[str, float]


def run(call: Call) -> PipelineResult:
    """Run the job."""
    settings, run_dir = call.settings, call.run_dir
    # What can fail early fails before Ray starts.
    configured_forms(settings.export)
    files = find_sources(settings.data, settings.workspace.sources_dir)
    settings.workspace.versions(settings.data.name).check_writable()
    Registry(settings.workspace.registry).check_writable()
    backbone = prepare_backbone(settings)
    past = past_run(settings.workspace.runs_dir, "pipeline", settings.model_dump(mode="json"))
    steps = Steps(_STEPS, past)
    with ExitStack() as stack:
        with ray_session(settings):
            check_capacity(settings.train)
            steps.begin("ingest")
            version = ingest.step(settings, files, run_dir)
            ingested = IngestResult.of(version, is_reused=False)
            title = steps.begin("train")
            recorded = settings.for_records()
            tracker = stack.enter_context(tracked(settings.tracking, run_dir, recorded))
            trained = fine_tune(settings, backbone, version, run_dir, title)
            track_training(tracker, version, run_dir)
        steps.begin("evaluate")
        model_dir, out = Path(trained.model_dir), run_dir / "evaluation"
        measured = evaluate.step(evaluate.on_own_test_split(settings), model_dir, out)
        tracker.report(measured.split, measured.headline, out)
        steps.begin("export")
        exported = export.step(settings, model_dir)
        steps.begin("publish")
        publication = attempt(lambda: publish.step(settings, model_dir, run_dir / "comparison"))
        publication.track(tracker)
        if not settings.train.keep_checkpoints:
            drop_checkpoints(run_dir)
    steps.finish()
    result = _result(ingested, trained, measured, exported, publication.summary, steps.seconds)
    if isinstance(publication, Refusal):
        raise RefusedError(str(publication.error), result) from publication.error
    return result


def _result(
    ingested: IngestResult,
    trained: FineTuned,
    measured: EvaluateResult,
    exported: export.ExportResult,
    published: PublicationSummary,
    step_seconds: dict[str, float],
) -> PipelineResult:
    return PipelineResult(
        dataset_version=ingested.dataset_version,
        model_version=published.model_version,
        alias=published.alias,
        macro_f1=measured.macro_f1,
        macro_over=measured.macro_over,
        accuracy=measured.accuracy,
        split="test",
        baselines={
            name: {"macro_f1": figures.macro_f1, "accuracy": figures.accuracy}
            for name, figures in measured.baselines.items()
        },
        ece=measured.ece,
        intervals={key: measured.intervals[key] for key in ("macro_f1", "accuracy")},
        temperature=trained.temperature,
        threshold=trained.threshold,
        gate=published.gate,
        exports=exported.kept,
        validation_macro_f1=trained.macro_f1,
        epoch=trained.epoch,
        counts=ingested.counts,
        rows_per_second=trained.rows_per_second,
        padding_share=trained.padding_share,
        model_dir=trained.model_dir,
        version_dir=published.version_dir,
        step_seconds=step_seconds,
    )


JOB = Job(
    name="pipeline",
    summary="Ingest, train, evaluate on the test split, export and publish in one command.",
    result=PipelineResult,
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
    fixed=RECIPE,
)

if __name__ == "__main__":
    main(JOB)
