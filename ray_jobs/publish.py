"""Publish an evaluated model to the registry."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsent.errors import InputError
from finsent.evaluation.metrics import brief
from finsent.files import read_json
from finsent.registry.registry import Registry
from finsent.runs import code_identity, find_model
from finsent.settings import Settings
from ray_jobs import compare
from ray_jobs._cli import Call, Job, Result, main
from ray_jobs._tracking import tracking

if TYPE_CHECKING:
    from finsent.tracking.tracker import Tracker

log = logging.getLogger(__name__)


CHAMPION = "champion"  # the alias that only a model no worse than the present one gets


def step(settings: Settings, model_dir: Path, out: Path) -> Result:
    """Publish a run's model and move the alias. Needs no Ray.

    Args:
        out: the comparison with the champion is written here, if there is one.

    Raises:
        InputError: the model is unusable or not measured, or worse than the champion.
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
    gate = check_gate(settings, registry, model_dir, settings.publish.alias, out)
    # All that write into a run's directory replace files, as sharing demands.
    own = model_dir.resolve().is_relative_to(settings.runs_dir.resolve())
    version = registry.publish(
        model_dir, brief(metrics), code_identity(), gate,
        license=settings.publish.license, share=own,
    )  # fmt: skip
    alias = settings.publish.alias
    if alias:
        registry.promote(version.version, alias, gate)
    log.info("published %s%s: %s", version.version, f" as {alias}" if alias else "", version.path)
    return {
        "model_version": version.version,
        "alias": alias,
        "version_dir": str(version.path),
        "dataset_version": (version.manifest["dataset"] or {}).get("version"),
        "macro_f1": metrics["macro_f1"],
        "accuracy": metrics["accuracy"],
        "gate": gate,
    }


def check_gate(
    settings: Settings, registry: Registry, model_dir: Path, alias: str | None, out: Path
) -> dict[str, Any] | None:
    """Compare a model that is to be champion with the present one, on its own test split.

    Args:
        alias: what the model is to be.
        out: the comparison is written here.

    Returns:
        `against`, `verdict` (None: could not be compared), `forced` (it took `publish.force`), and
        the numbers or the `reason`; None when there is nothing to compare: another alias, no
        champion, or the same model.

    Raises:
        InputError: it is worse or cannot be compared, and `publish.force` is not set.
    """
    force = settings.publish.force
    against = registry.aliases().get(CHAMPION) if alias == CHAMPION else None
    if against is None or against == registry.version_id(model_dir):
        return None
    plain = settings.evaluate.model_copy(update={"dataset": None, "sources": [], "split": "test"})
    try:
        found = compare.step(
            settings.model_copy(update={"evaluate": plain}),
            registry.get(against).path, model_dir, out,
        )  # fmt: skip
    except InputError as error:
        if not force:
            raise InputError(
                f"alias {CHAMPION!r}: the model cannot be compared with the champion {against} "
                f"({error}); mend that, give it another alias, or set publish.force=true"
            ) from None
        log.warning("published without a comparison with the champion %s: %s", against, error)
        return {"against": against, "verdict": None, "forced": True, "reason": str(error)}
    if found["verdict"] == "worse" and not force:
        from finsent.evaluation.compare import comparison_line

        raise InputError(
            f"alias {CHAMPION!r}: the model is worse than the champion {against}: "
            f"{comparison_line(found)}; keep the champion, give the model another alias, e.g. "
            "challenger, or set publish.force=true"
        )
    kept = ("verdict", "rows", "dataset_version", "difference", "mcnemar", "flipped")
    figures = ("accuracy", "macro_f1")
    return {
        "against": against,
        "forced": found["verdict"] == "worse",
        **{key: found[key] for key in kept},
        "champion": {key: found["a"][key] for key in figures},
        "candidate": {key: found["b"][key] for key in figures},
    }


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    model_dir = find_model(settings.publish.model, settings.runs_dir, "publish.model")
    with tracking(settings, model_dir.parent) as tracker:
        published = step(settings, model_dir, call.run_dir / "comparison")
        track(tracker, published)
    return published


def track(tracker: Tracker, published: Result) -> None:
    """Record a published version."""
    folder = Path(published["version_dir"])
    tracker.model(folder, published["model_version"], published["alias"])


JOB = Job(
    name="publish",
    summary="Copy an evaluated model into the registry as an immutable version with a manifest "
    "and a model card, and point an alias at it. A model that is to be `champion` is first "
    "compared with the present champion on its dataset version's test split, as by "
    "`ray_jobs.compare`; one that is worse is refused unless publish.force=true.",
    result="model_version, alias, version_dir, dataset_version, macro_f1, accuracy (test split),"
    " gate (the comparison with the champion; null: there was none to make), run_dir, seconds",
    sections=("publish", "evaluate", "engine", "registry", "storage", "run", "tracking"),
    run=run,
)

if __name__ == "__main__":
    main(JOB)
