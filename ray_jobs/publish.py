"""Publish an evaluated model to the registry."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from finsent.errors import InputError
from finsent.evaluation.metrics import brief
from finsent.files import read_json
from finsent.registry.model_handle import Model
from finsent.registry.registry import Registry
from finsent.runs import code_identity
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, main
from ray_jobs._domains import warn_of_lost_calibrations
from ray_jobs._gate import check_gate
from ray_jobs._results import Output, Result, as_result
from ray_jobs._tracking import tracking

if TYPE_CHECKING:
    from finsent.tracking.tracker import Tracker

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
        dict[str, Any] | None,
        "outcome, reason, splits; null: no champion, or the same model",
    ]


def step(settings: Settings, model_dir: Path, out: Path) -> PublishResult:
    """Publish a run's model and move the alias. Needs no Ray.

    Args:
        out: see `check_gate`.

    Raises:
        InputError: the model is unusable or not measured, or is stopped by the gate.
    """
    report = model_dir.parent / "evaluation" / "metrics.json"
    if not report.is_file():
        raise InputError(
            f"publish.model={settings.publish.model!r}: has no {report}; measure it first with "
            f"`python -m ray_jobs.evaluate evaluate.model={model_dir.parent}`"
        )
    metrics = read_json(report)
    if not isinstance(metrics, dict) or not metrics.keys() >= {"macro_f1", "accuracy", "labels"}:
        raise InputError(f"{report}: not an evaluation's metrics; evaluate the model again")
    registry = Registry(settings.registry_dir)
    registry.check_writable()
    alias = settings.publish.alias
    clearance = check_gate(settings, registry, model_dir, alias, out, metrics.get("rows"))
    gate = clearance.gate if clearance else None
    # All that write into a run's directory replace files, as sharing demands.
    own = model_dir.resolve().is_relative_to(settings.runs_dir.resolve())
    version = registry.publish(
        model_dir,
        brief(metrics),
        code_identity(),
        gate,
        license=settings.publish.license,
        share=own,
    )
    warn_of_lost_calibrations(registry, alias, version.version)
    if alias:
        registry.promote(version.version, alias, clearance)
    log.info("published %s%s: %s", version.version, f" as {alias}" if alias else "", version.path)
    return PublishResult(
        model_version=version.version,
        alias=alias,
        version_dir=str(version.path),
        dataset_version=(version.manifest["dataset"] or {}).get("version"),
        macro_f1=metrics["macro_f1"],
        accuracy=metrics["accuracy"],
        gate=gate.as_json() if gate else None,
    )


def attempt(publish: Callable[[], Output]) -> tuple[Result, InputError | None]:
    """Publish, or return why that is refused, so that the caller keeps its own result.

    Returns:
        The result with `model_version`, `alias`, `version_dir` and `gate`, all null after a
        refusal; and the refusal.
    """
    try:
        return as_result(publish()), None
    except InputError as error:
        return dict.fromkeys(("model_version", "alias", "version_dir", "gate")), error


def run(call: Call) -> PublishResult:
    """Run the job."""
    settings = call.settings
    model = Model.find_unpublished(settings.publish.model, settings.workspace, "publish.model")
    with tracking(settings, model.folder.parent) as tracker:
        result = step(settings, model.folder, call.run_dir / "comparison")
        track(tracker, as_result(result))
    return result


def track(tracker: Tracker, published: Result) -> None:
    """Record a published version."""
    folder = Path(published["version_dir"])
    tracker.model(folder, published["model_version"], published["alias"], published["gate"])


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
