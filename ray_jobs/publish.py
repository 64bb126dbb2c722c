"""Publish an evaluated model to the registry."""

from __future__ import annotations

import logging
from pathlib import Path

from finsent.errors import InputError
from finsent.files import read_json
from finsent.registry.registry import Registry
from finsent.runs import code_identity, find_model
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main

log = logging.getLogger(__name__)


def step(settings: Settings, model_dir: Path) -> Result:
    """Publish a run's model and move the alias. Needs no Ray."""
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
    version = registry.publish(model_dir, metrics, code_identity())
    alias = settings.publish.alias
    if alias:
        registry.promote(version.version, alias)
    log.info("published %s%s: %s", version.version, f" as {alias}" if alias else "", version.path)
    return {
        "model_version": version.version,
        "alias": alias,
        "version_dir": str(version.path),
        "dataset_version": (version.manifest["dataset"] or {}).get("version"),
        "macro_f1": metrics["macro_f1"],
        "accuracy": metrics["accuracy"],
    }


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    model_dir = find_model(settings.publish.model, settings.runs_dir, "publish.model")
    return step(settings, model_dir)


JOB = Job(
    name="publish",
    summary="Copy an evaluated model into the registry as an immutable version with a manifest "
    "and a model card, and point an alias at it.",
    result="model_version, alias, version_dir, dataset_version, macro_f1, accuracy (test split),"
    " run_dir, seconds",
    sections=("publish", "registry", "storage", "run"),
    run=run,
)

if __name__ == "__main__":
    main(JOB)
