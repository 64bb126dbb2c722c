"""Search hyperparameters, and verify what was found."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from finsent.adapters.ray_core import ENVIRONMENT
from finsent.config import to_yaml
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.files import write_json, write_text
from finsent.modeling.backbone import Backbone
from finsent.modeling.provenance import read_provenance
from finsent.registry.registry import Registry
from ray_jobs import evaluate, publish, train
from ray_jobs._cli import Call, Interrupted, Job, RefusedError, Result, main, table_console
from ray_jobs._ray import ray_session
from tune.records import SWEEP, VERIFICATION, Sweep, read_sweep
from tune.settings import SweepSettings
from tune.space import with_values

if TYPE_CHECKING:  # it brings Ray
    from tune.plan import Plan

log = logging.getLogger(__name__)

BEST = "best.yaml"


def run(call: Call) -> Result:
    """The job."""
    from tune.plan import make_plan

    settings, run_dir = call.settings, call.run_dir
    version = DatasetVersion.find(settings.train.dataset, settings.datasets_dir, "train.dataset")
    backbone = train.prepare(settings)
    plan = make_plan(settings, backbone)
    _check_choices(plan)
    warm = [read_sweep(folder) for folder in settings.sweep.warm_start]
    if settings.sweep.dry_run:
        return dry_run(plan, backbone, version)
    if settings.sweep.publish:
        Registry(settings.registry_dir).check_writable()
    from tune.ledger import locked
    from tune.plan import identity
    from tune.study import claim, open_study

    with locked(run_dir):
        # Both fail here rather than beside running workers.
        claim(open_study(settings.sweep, run_dir), identity(run_dir))
        with ray_session(settings):
            return _sweep(plan, backbone, version, run_dir, warm)


def _check(settings: SweepSettings, run_dir: Path) -> None:
    """A refused call leaves a sweep's directory as it is."""
    from tune.ledger import locked
    from tune.plan import check_run

    if (run_dir / SWEEP).is_file():
        with locked(run_dir):
            check_run(settings, run_dir)


def _check_choices(plan: Plan) -> None:
    """Check what no type says: backbones and trainers that are not there."""
    for one in plan.space.parameters:
        if one.key in ("model.backbone", "train.trainer", "train.lora_rank") and not one.parent:
            for value in one.tried():
                train.prepare(with_values(plan.settings, {one.key: value}))


def _sweep(
    plan: Plan, backbone: Backbone, version: DatasetVersion, run_dir: Path, warm: list[Sweep]
) -> Result:
    from finsent.training.ray_trainer import tokenize_split
    from finsent.training.split_summary import summarize_splits
    from finsent.training.task import make_task
    from ray_jobs._sweep_tracking import TrialTracking
    from tune.plan import begin, end
    from tune.room import room
    from tune.stats import ranked
    from tune.sweep import search
    from tune.trial import Work
    from tune.verify import verify

    settings, config = plan.settings, plan.config
    available = room(plan.widest)
    concurrent = min(config.concurrent or available, available)
    sweep = begin(plan, run_dir, version.version, concurrent)
    log.info(
        "sweep: %d trials of %s on dataset %s, up to %d epochs each, %d at the same time; %s",
        config.trials,
        config.search,
        version.version,
        plan.epochs,
        concurrent,
        run_dir,
    )
    task = make_task(settings.train, settings.model, backbone, version)
    for remark in summarize_splits(version, task).remarks():
        log.warning("sweep: %s", remark)
    datasets = {split: tokenize_split(version, split, task) for split in ("train", "validation")}
    work = Work(
        settings,
        run_dir,
        version.path,
        config.modes,
        datasets,
        config.scheduler == "pbt",
        dict(ENVIRONMENT),
    )
    try:
        with TrialTracking(settings, run_dir) as tracking:
            exhausted = search(plan, work, sweep, warm, concurrent, tracking.follow)
        sweep = read_sweep(run_dir)
        if not ranked(sweep):
            raise without_value(plan, sweep)
        found = None
        if config.verify_best:
            found = verify(plan, work, sweep, concurrent)
            found = _test(settings, found, run_dir)
    except Interrupted:
        _say_best(plan, run_dir)
        raise
    end(run_dir, exhausted=exhausted)
    return _finish(settings, run_dir, _result(plan, run_dir, found), found and found["test"])


def without_value(plan: Plan, sweep: Sweep) -> InputError:
    """What is wrong where no trial has a value."""
    from tune.records import DIVERGED
    from tune.stats import RATE

    count, reasons = len(sweep.trials), [t.reason for t in sweep.trials if t.reason]
    why = reasons[0].partition("; last good checkpoint")[0] if reasons else "none was started"
    if count and all(trial.status == DIVERGED for trial in sweep.trials):
        field, form = RATE, plan.config.space.get(RATE)
        if form is not None:
            field = f"sweep.space.{RATE}={form}"
        trials = "the only trial" if count == 1 else f"all {count} trials"
        return InputError(
            f"{field}: {trials} diverged (e.g. {why}); set a lower rate under another run.name"
        )
    statuses = [trial.status for trial in sweep.trials]
    counts = ", ".join(f"{statuses.count(one)} {one}" for one in dict.fromkeys(statuses))
    return InputError(f"sweep: not one of {count} trials has a value ({counts}; first: {why})")


def _test(settings: SweepSettings, found: Result, run_dir: Path) -> Result:
    """Calibrate the chosen model and score it once on the test split."""
    chosen = evaluate.on_own_test_split(with_values(settings, found["params"]))
    model_dir = Path(found["model_dir"])
    origin = evaluate.own_dataset(settings, read_provenance(model_dir).dataset)
    assert origin is not None, "the trials have just read it"
    train.calibrate(chosen, model_dir, origin)
    measured = evaluate.step(chosen, model_dir, run_dir / "evaluation")
    keys = ("macro_f1", "macro_over", "accuracy", "ece", "rows")
    found = {**found, "test": {key: measured[key] for key in keys}}
    write_json(run_dir / VERIFICATION, found)
    return found


def write_best(plan: Plan, run_dir: Path, params: dict[str, Any], said: str) -> Path:
    """`best.yaml`: the sections data, model and train as a job takes them."""
    path = run_dir / BEST
    body = to_yaml(with_values(plan.settings, params), ("data", "model", "train"))
    write_text(path, f"# {said}\n{body}")
    return path


def _say_best(plan: Plan, run_dir: Path) -> None:
    """What there is when a sweep is interrupted."""
    from tune.stats import ranked

    found = ranked(read_sweep(run_dir))
    if found:
        value, trial = found[0]
        said = f"Best so far of the sweep {run_dir.name}: trial {trial.number}, "
        said += f"{plan.config.metric} {value:.4f}, not verified."
        log.info("sweep: %s %s", said, write_best(plan, run_dir, trial.params, said))
        if page := _page(run_dir):
            log.info("sweep: %s", page)
    log.info("sweep: the same command with run.name=%s goes on", run_dir.name)


def _page(run_dir: Path) -> str | None:
    """Analyze; None where no trial has ended with a value."""
    from tune.analysis import analyze

    try:
        return str(analyze([run_dir])["page"])
    except InputError as error:
        log.info("sweep: no page yet: %s", error)
        return None


def _result(plan: Plan, run_dir: Path, found: Result | None) -> Result:
    from tune.stats import about_failures, asked, driver_share, ranked, savings

    sweep, config = read_sweep(run_dir), plan.config
    value, best = ranked(sweep)[0]
    params = best.params if found is None else found["params"]
    if found is None:
        said = f"trial {best.number}, {config.metric} {value:.4f}, not verified"
    else:
        name = found["chosen"] if found["chosen"] == "default" else f"trial {found['chosen']}"
        said = f"{name}, {config.metric} {found['verified']:.4f} on average over new seeds"
    path = write_best(plan, run_dir, params, f"Found by the sweep {run_dir.name}: {said}.")
    page = _page(run_dir)
    for line in filter(None, (asked(sweep), *about_failures(sweep))):
        log.info("sweep: %s", line)
    log.info("sweep: %s; %s", said, page or path)
    statuses = [trial.status for trial in sweep.trials]
    saved = savings(sweep)
    return {
        "trials": {status: statuses.count(status) for status in sorted(set(statuses))},
        "trials_wanted": config.trials,
        "repeated": sweep.repeated,
        "exhausted": sweep.exhausted,
        "epochs": saved.epochs + saved.other_epochs,
        "spent_share": saved.share,
        "driver_share": driver_share(sweep),
        "best": {"trial": best.number, config.metric: value, "params": best.params},
        "verified": found
        and {key: found[key] for key in ("chosen", "verified", "luck", "gain", "test", "seed")},
        "front": _front(sweep),
        "best_yaml": str(path),
        "page": page,
        "storage": sweep.settings["storage"],
        "study": sweep.settings["study_name"],
    }


def _finish(
    settings: SweepSettings, run_dir: Path, result: Result, measured: Result | None
) -> Result:
    """Publish the winner where that is wanted, and track the sweep.

    Args:
        measured: figures of the winner on the test split; None: the sweep verified none.

    Raises:
        RefusedError: the winner is not published; the result is kept.
    """
    from ray_jobs._sweep_tracking import track_sweep

    alias = settings.sweep.publish
    if not alias:
        track_sweep(settings, run_dir, measured, {})
        return result
    changed = settings.replaced(publish=settings.publish.replaced(alias=alias))
    published, refusal = publish.attempt(
        lambda: publish.step(changed, run_dir / "model", run_dir / "comparison")
    )
    track_sweep(settings, run_dir, measured, published if refusal is None else {})
    result = result | {"model_version": published["model_version"]}
    if refusal is not None:
        raise RefusedError(str(refusal), result) from refusal
    return result


def _front(sweep: Sweep) -> list[dict[str, Any]] | None:
    if len(sweep.objectives) < 2:
        return None
    from tune.importance import pareto_front

    numbers = pareto_front(sweep)
    return [
        {"trial": t.number, **t.values, "params": t.params}
        for t in sweep.trials
        if t.number in numbers
    ]


def dry_run(plan: Plan, backbone: Backbone, version: DatasetVersion) -> Result:
    """What a sweep would do; needs no Ray and writes nothing."""
    from tune.cost import expected_epochs, row_rate, samples

    drawn = samples(plan, 10)
    table = Table("", *(one.key for one in plan.space.parameters))
    for number, params in enumerate(drawn):
        cells = [params.get(one.key, "") for one in plan.space.parameters]
        table.add_row(str(number), *(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells))
    table_console().print(table)
    expected, full = expected_epochs(plan)
    rows = version.rows("train")
    rate, source = row_rate(plan.settings, backbone, version)
    verifying = plan.config.verify_best and (
        (plan.config.verify_best + 1) * plan.config.verify_seeds * plan.epochs
    )
    seconds = (expected + verifying) * rows / rate
    log.info(
        "sweep: about %d epochs of %d rows (%d without early stopping), then %d to verify; %.0f "
        "minutes of trials one after another at %.0f rows/s (%s), less with several at a time",
        expected,
        rows,
        full,
        verifying,
        seconds / 60,
        rate,
        source,
    )
    return {
        "configs": drawn,
        "epochs": expected,
        "epochs_in_full": full,
        "epochs_to_verify": verifying,
        "rows": rows,
        "rows_per_second": rate,
        "rows_per_second_source": source,
        "trial_seconds": round(seconds, 1),
    }


JOB = Job(
    name="sweep",
    summary="Search hyperparameters over a space in YAML with Optuna and Ray Tune: each trial is a "
    "training as `ray_jobs.train` does it, most end early. The best are trained again with other "
    "seeds beside the settings as they are; the best mean on the validation split is scored once "
    "on the test split, and becomes best.yaml. Ended at any point, the same command with the same "
    "run.name goes on. --dry-run prints ten configurations and what it would cost.",
    result="trials (by status; diverged: the loss was no number or too large), trials_wanted, "
    "repeated (suggestions that a trial had before, and that were not trained), exhausted (whether "
    "the space has no further configuration), epochs, spent_share (of the epochs without early "
    "stopping), driver_share (of the trials' time, between one and the next), best "
    "(of the search, partly luck), verified (chosen, verified: its mean, luck, gain over the "
    "settings as they are by seed, test, seed), front (of several objectives), best_yaml, page "
    "(null: no trial has ended), storage, study, model_version (where published), run_dir, "
    "seconds; of --dry-run: configs, epochs, epochs_in_full, epochs_to_verify, rows, "
    "rows_per_second, rows_per_second_source, trial_seconds",
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
