"""Search hyperparameters, and verify what was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finsent.adapters.ray_core import ENVIRONMENT
from finsent.data.versions.dataset import DatasetVersion
from finsent.modeling.trained_on import find_dataset, read_trained_on
from finsent.ray_session import check_training_shared, ray_session
from finsent.registry.publication import Refusal, attempt
from finsent.registry.registry import Registry
from finsent.training.fine_tune import calibrate_model, prepare_backbone
from ray_jobs import evaluate, publish
from ray_jobs._cli import (
    Call,
    Interrupted,
    Job,
    JobSettings,
    RefusedError,
    Result,
    as_result,
    main,
    table_console,
)
from tune.records import SWEEP, VERIFICATION, Sweep, Verification, read_sweep
from tune.results import Estimate, SweepResult
from tune.settings import SweepSettings
from tune.space import with_values

if TYPE_CHECKING:
    from tune.plan import Plan
    from tune.run import SweepRun

_CHOICES = ("model.backbone", "train.trainer", "train.lora_rank")  # that no type checks
_TESTED = ("macro_f1", "macro_over", "accuracy", "ece", "rows")


def run(call: Call) -> SweepResult | Estimate:
    """Search, verify, test and maybe publish; or estimate the cost (`--dry-run`)."""
    # Ray Tune and Optuna: two seconds that `finsent --help` does without.
    from tune.dry_run import configs_table, estimate, log_cost
    from tune.plan import make_plan, sweep_identity
    from tune.run import SweepRun
    from tune.study import claim_study, open_study
    from tune.trial_log import lock_run_dir

    settings, run_dir = call.settings, call.run_dir
    version = DatasetVersion.find(
        settings.train.dataset, settings.workspace.versions(settings.data.name), "train.dataset"
    )
    backbone = prepare_backbone(settings)
    plan = make_plan(settings, backbone)
    _check_choices(plan)
    warm = [read_sweep(folder) for folder in settings.sweep.warm_start]
    if settings.sweep.dry_run:
        expected = estimate(plan, backbone, version)
        table_console().print(configs_table(plan, expected.configs))
        log_cost(expected)
        return expected
    if settings.sweep.publish:
        Registry(settings.workspace.registry).check_writable()
    with lock_run_dir(run_dir):
        # Both fail before workers start.
        claim_study(open_study(settings.sweep, run_dir), sweep_identity(run_dir))
        with ray_session(settings):
            check_training_shared(settings)
            sweep_run = SweepRun(plan, run_dir, backbone, version, ENVIRONMENT)
            return _sweep(sweep_run, warm)


def _check(settings: JobSettings, run_dir: Path) -> None:
    """Check that the run's directory holds no sweep of other settings, and leave it as it is."""
    from tune.plan import check_run_dir  # imports Ray Tune, as above
    from tune.trial_log import lock_run_dir

    if (run_dir / SWEEP).is_file():
        with lock_run_dir(run_dir):
            check_run_dir(settings, run_dir)


def _check_choices(plan: Plan) -> None:
    """Check that the backbones and trainers of the space are there."""
    for parameter in plan.space.parameters:
        if parameter.key in _CHOICES and not parameter.parent:
            for value in parameter.boundary_values():
                prepare_backbone(with_values(plan.settings, {parameter.key: value}))


def _sweep(sweep_run: SweepRun, warm: list[Sweep]) -> SweepResult:
    from tune.findings import report_interrupted, report_sweep  # imports Ray Tune, as above
    from tune.plan import end_sweep

    plan, run_dir = sweep_run.plan, sweep_run.run_dir
    try:
        exhausted = sweep_run.search(warm)
        verification = sweep_run.verify()
        if verification is not None:
            verification = _test(plan.settings, verification, run_dir)
    except Interrupted:
        report_interrupted(plan, run_dir)
        raise
    end_sweep(run_dir, exhausted=exhausted)
    result = report_sweep(plan, run_dir, verification)
    return _finish(plan.settings, run_dir, result, verification.test if verification else None)


def _test(settings: SweepSettings, verification: Verification, run_dir: Path) -> Verification:
    """Calibrate the chosen model and score it once on the test split."""
    chosen = evaluate.on_own_test_split(with_values(settings, verification.params))
    model_dir = Path(verification.model_dir)
    dataset = find_dataset(settings.workspace, read_trained_on(model_dir))
    assert dataset is not None, "the trials have just read it"
    calibrate_model(chosen, model_dir, dataset)
    measured = as_result(evaluate.step(chosen, model_dir, run_dir / "evaluation"))
    verification = verification.replaced(test={key: measured[key] for key in _TESTED})
    verification.write(run_dir / VERIFICATION)
    return verification


def _finish(
    settings: SweepSettings, run_dir: Path, result: SweepResult, measured: Result | None
) -> SweepResult:
    """Publish the winner under the alias `sweep.publish`, if any, and track the sweep.

    Args:
        measured: figures of the winner on the test split; None: the sweep verified none.

    Raises:
        RefusedError: the winner is not published; the result is kept.
    """
    from tune.tracking import track_sweep  # imports Ray Tune, as above

    alias = settings.sweep.publish
    if not alias:
        track_sweep(settings, run_dir, measured, None)
        return result
    section = settings.publish.replaced(alias=alias)
    settings = settings.replaced(publish=section)
    publication = attempt(lambda: publish.step(settings, run_dir / "model", run_dir / "comparison"))
    track_sweep(settings, run_dir, measured, publication)
    result = replace(result, model_version=publication.summary.model_version)
    if isinstance(publication, Refusal):
        raise RefusedError(str(publication.error), result) from publication.error
    return result


JOB = Job(
    name="sweep",
    summary="Search hyperparameters over a space in YAML with Optuna and Ray Tune. Each trial "
    "is a training as by `ray_jobs.train`; most trials end early. The best configurations, and "
    "the unchanged settings, are trained again with other seeds. The configuration with the "
    "best mean on the validation split is scored once on the test split and becomes best.yaml. "
    "Re-run the same command with the same run.name to resume. --dry-run prints ten "
    "configurations and the expected cost.",
    result={"": SweepResult, "--dry-run": Estimate},
    sections=(
        "sweep",
        "train",
        "model",
        "data",
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
    home="sweep",
    flags={"--dry-run": "sweep.dry_run=true"},
    dry=lambda settings: settings.sweep.dry_run,
    check=_check,
)

if __name__ == "__main__":
    main(JOB)
