"""One trial of Ray Tune: the loop of `ray_jobs.train` on a trial's settings, in another process.

`tune.trial_report` describes the reports. A trial that fails does not raise: the same failure would
come again, and only a lost process is worth another try.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finsent.adapters.ray_tune import exit_trial
from finsent.disk import DiskError, find_disk_error
from finsent.errors import DivergenceError
from finsent.training.checkpoint import epoch_checkpoint_name
from finsent.training.metrics_log import read_epochs
from tune.records import TrainedModel, TrialConfig
from tune.settings import SweepSettings
from tune.space import with_values
from tune.training import Training
from tune.trial_failure import failure_cause, failure_reason
from tune.trial_report import CAUSE, FAILURE, FINAL, FULL, MODEL_DIR
from tune.weight_exchange import drop_checkpoints, offered_checkpoint, training_dir

if TYPE_CHECKING:
    from finsent.training.metrics import EpochLine

TRIALS_DIR = "trials"
RESULT_FILE = "trial.json"  # in a finished trial's directory
STOP_FILE = ".stop"  # in the sweep's directory, when all trials are to end
_WORST = {"max": -1e9, "min": 1e9}  # finite: Optuna and Ray's schedulers compute with it
_POLL_SECONDS = 0.5
_ROW_SETTINGS = ("data.", "model.")  # a trial that varies these tokenizes its own rows


@dataclass(frozen=True)
class TrialContext:
    """Settings and paths that the trials of a sweep share."""

    settings: SweepSettings
    run_dir: Path  # of the sweep; all nodes see it
    version_dir: Path  # the dataset version, where no trial makes its own
    modes: dict[str, str]  # direction by objective; the metric first
    # Tokenized splits by name, as `training` reads them; unused by trials that vary data or model.
    datasets: Mapping[str, object]
    exchanges_weights: bool = False  # under PBT
    environment: dict[str, str] = field(default_factory=dict)  # defaults of environment variables
    training: type[Any] = Training  # actor class with the methods of Training

    @property
    def metric(self) -> str:
        """The first objective."""
        return next(iter(self.modes))


def run_trial(config: Mapping[str, Any], context: TrialContext) -> None:
    """Train a configuration and report to Ray Tune: the trainable of a sweep.

    Args:
        config: a `TrialConfig`, under PBT below the key `trial`.
    """
    trial_config = own_config(config, tune.get_context().get_trial_name())
    reports = _Reports(context)
    try:
        _run(trial_config, context, reports)
    except ray.exceptions.RayActorError:  # a process or a node was lost
        raise
    except Exception as error:  # any failure is this trial's end, and not the sweep's
        full = find_disk_error(error)
        cause = None if full else failure_cause(error)
        reports.failed(failure_reason(full or error), cause, full)


def trial_name(number: int) -> str:
    """Return the name of a trial in Ray Tune."""
    return f"trial-{number:04d}"


def trial_dir(run_dir: Path, number: int) -> Path:
    """Return the directory of a trial."""
    return run_dir / TRIALS_DIR / f"{number:04d}"


def own_config(config: Mapping[str, Any], name: str) -> TrialConfig:
    """Return a trial's config with its own number.

    PBT replaces a trial's config by another trial's, with that trial's number.

    Args:
        name: the trial's name, of `trial_name`.
    """
    own: Any = {**config.get("trial", config), "number": int(name.rpartition("-")[2])}
    typed: TrialConfig = own
    return typed


class _Reports:
    """A trial's reports, each with `epoch` and the metric, which schedulers need."""

    def __init__(self, context: TrialContext) -> None:
        self._context, self._epoch = context, 0

    def epoch(self, line: EpochLine, folder: Path) -> None:
        """Report an epoch; under PBT with a checkpoint that offers the weights.

        Args:
            line: the epoch's line of the journal.
            folder: the trial's directory.
        """
        metric = self._context.metric
        metrics = {
            key: value
            for key, value in line.model_dump().items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        if metric not in metrics:
            raise DivergenceError(f"{metric} is not a finite number after epoch {line.epoch}")
        self._epoch = line.epoch
        if not self._context.exchanges_weights:
            tune.report(metrics)
            return
        with offered_checkpoint(folder, self._epoch) as checkpoint:
            tune.report(metrics, checkpoint=checkpoint)

    def finished(self, trained: TrainedModel) -> None:
        """Report the trial's end."""
        for name, value in trained.final.items():
            if not math.isfinite(value):
                raise DivergenceError(f"{name} is not a finite number at the trial's end")
        metric = self._context.metric
        report = {FINAL: trained.final, MODEL_DIR: trained.model_dir}
        tune.report({**report, metric: trained.final[metric], "epoch": self._epoch})

    def failed(self, reason: str, cause: str | None, full: DiskError | None) -> None:
        """Report a failure.

        Args:
            cause: of CAUSES, where the trial's settings are to blame.
            full: an error that every trial would meet, so that the sweep ends.
        """
        metric = self._context.metric
        worst = _WORST[self._context.modes[metric]]
        report: dict[str, object] = {FAILURE: reason, metric: worst, "epoch": self._epoch}
        report |= {CAUSE: cause} if cause else {}
        tune.report(report | ({FULL: full.arguments} if full else {}))


def _run(config: TrialConfig, context: TrialContext, reports: _Reports) -> None:
    settings = with_values(context.settings, config["params"])
    if context.exchanges_weights:  # checkpoints that other trials may take over stay
        train = settings.train.replaced(keep_every_epochs=settings.sweep.grace_epochs)
        settings = settings.replaced(train=train)
    folder = _trial_folder(config, context)
    reporter = _EpochReporter(
        folder,
        lambda line: reports.epoch(line, folder),
        needs_checkpoint=context.exchanges_weights,
    )
    if (folder / RESULT_FILE).is_file():  # the driver was killed before it got the result
        trained = TrainedModel.read(folder / RESULT_FILE)
        reporter.needs_checkpoint = False
        reporter.poll()
        reports.finished(trained)
        return
    trained = _train(settings, config["params"], context, folder, reporter)
    trained.write(folder / RESULT_FILE)
    if not context.exchanges_weights:
        drop_checkpoints(folder)
    reports.finished(trained)


def _trial_folder(config: TrialConfig, context: TrialContext) -> Path:
    folder = trial_dir(context.run_dir, config["number"])
    if "folder" in config:
        folder = context.run_dir / config["folder"]
    return training_dir(folder, config["params"]) if context.exchanges_weights else folder


def _train(
    settings: SweepSettings,
    params: Mapping[str, Any],
    context: TrialContext,
    folder: Path,
    reporter: _EpochReporter,
) -> TrainedModel:
    """Train in another process, and report the epochs as they end.

    Ray Tune stops a trial by ending this thread, and keeps this process for another trial. So the
    training has its own process, which is then killed, see `tune.orphaned_groups`. In this process
    Ray Tune's placement group would also capture Ray Data's tasks.
    """
    this_node = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(this_node, soft=False)
    remote: Any = ray.remote(num_cpus=0)(context.training).options(scheduling_strategy=strategy)
    training = remote.remote(context.environment)
    has_own_rows = settings.train.distill_folds or any(k.startswith(_ROW_SETTINGS) for k in params)
    datasets = {} if has_own_rows else context.datasets
    try:
        done = training.run.remote(
            settings, params, context.version_dir, datasets, folder, context.modes
        )
        while not ray.wait([done], timeout=_POLL_SECONDS)[0]:
            if (context.run_dir / STOP_FILE).exists():
                exit_trial()
            reporter.poll()
        values, model_dir = ray.get(done)
        reporter.poll()
    finally:
        ray.kill(training)
    return TrainedModel(final=values, model_dir=str(model_dir))


class _EpochReporter:
    """Reports each epoch of a run's journal once, also the epochs before a resume.

    Args:
        folder: the run's directory.
        on_epoch: called with each epoch's line of the journal.
        needs_checkpoint: whether the newest epoch is reported only when its checkpoint exists.
    """

    def __init__(
        self, folder: Path, on_epoch: Callable[[EpochLine], None], *, needs_checkpoint: bool
    ) -> None:
        self.needs_checkpoint = needs_checkpoint
        self._folder, self._on_epoch, self._reported = folder, on_epoch, 0

    def poll(self) -> None:
        """Report the new epochs."""
        lines = [*read_epochs(self._folder)]
        if self.needs_checkpoint and lines and not self._has_checkpoint(lines[-1].epoch):
            lines.pop()
        for line in lines:
            if line.epoch > self._reported:
                self._reported = line.epoch
                self._on_epoch(line)

    def _has_checkpoint(self, epoch: int) -> bool:
        return (self._folder / epoch_checkpoint_name(epoch)).is_dir()
