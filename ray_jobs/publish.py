"""Publish an evaluated model to the registry."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from finsent.evaluation.results import read_metrics
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.registry.gate import Gate
from finsent.registry.model_handle import Model
from finsent.registry.publication import Publication
from finsent.registry.registry import Registry
from finsent.settings import Settings
from finsent.tracking.tracker import tracked
from ray_jobs._cli import Call, Job, main

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishResult:
    """Result of the job: a version of the registry."""

    model_version: str
    alias: str | None
    version_dir: str
    dataset_version: str | None
    macro_f1: float
    accuracy: Annotated[float, "on the test split, as macro_f1"]
    gate: Annotated[
        Gate | None,
        "outcome, reason, splits; null: no champion, or the same model",
    ]


def step(settings: Settings, model_dir: Path, out: Path) -> Publication:
    """Publish a run's model and point the alias at it. Needs no Ray.

    Args:
        out: directory of the gate's comparison, see `finsent.judging.champion_gate.check_gate`.

    Raises:
        InputError: the model is unusable or not measured, or the gate refuses it.
    """
    # scikit-learn, SciPy and tokenizers: two seconds that `finsent --help` does without.
    from finsent.judging.champion_gate import publish_behind_gate

    rules = settings.publish
    metrics = read_metrics(rules.model, model_dir)
    Registry(settings.workspace.registry).check_writable()
    # All writers into a run's directory replace files, as sharing demands.
    is_own = model_dir.resolve().is_relative_to(settings.workspace.runs_dir.resolve())
    publication = publish_behind_gate(
        EvaluationSetup.of(settings),
        rules,
        model_dir,
        rules.alias,
        metrics,
        out,
        license=rules.license,
        share=is_own,
    )
    version, alias = publication.version, publication.alias
    log.info("published %s%s: %s", version.version, f" as {alias}" if alias else "", version.path)
    return publication


def run(call: Call) -> PublishResult:
    """Publish the model of `publish.model`."""
    settings = call.settings
    model = Model.find_unpublished(settings.publish.model, settings.workspace, "publish.model")
    metrics = read_metrics(settings.publish.model, model.folder)
    with tracked(settings.tracking, model.folder.parent, settings.for_records()) as tracker:
        publication = step(settings, model.folder, call.run_dir / "comparison")
        publication.track(tracker)
    version = publication.version
    dataset = version.manifest.dataset
    return PublishResult(
        model_version=version.version,
        alias=publication.alias,
        version_dir=str(version.path),
        dataset_version=dataset.version if dataset else None,
        macro_f1=metrics.macro_f1,
        accuracy=metrics.accuracy,
        gate=publication.gate,
    )


JOB = Job(
    name="publish",
    summary="Copy an evaluated model into the registry as an immutable version with a manifest "
    "and a model card, and point an alias at it. A model that is to be `champion` is first "
    "compared with the present champion on the test splits of both, as by `ray_jobs.compare`. It "
    "is published when it is shown not to be inferior: with 95 % confidence, accuracy and macro-F1 "
    "fall by less than publish.margin. It is refused when it is inferior, and when the rows cannot "
    "tell, unless publish.force=true.",
    result=PublishResult,
    sections=("publish", "evaluate", "engine", "registry", "storage", "run", "tracking"),
    run=run,
)

if __name__ == "__main__":
    main(JOB)
