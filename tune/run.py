"""Run a sweep on a connected Ray: search, then train the best configurations again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from finsent.data.versions.dataset import DatasetVersion
from finsent.modeling.backbone import Backbone
from finsent.training.ray_trainer import tokenize_split
from finsent.training.split_summary import summarize_splits
from finsent.training.task import make_task
from tune.concurrency import max_concurrent_trials
from tune.findings import without_value
from tune.plan import Plan, begin_sweep
from tune.records import Sweep, Verification, read_sweep
from tune.stats import ranked
from tune.sweep import search
from tune.tracking import TrialTracking
from tune.trial import TrialContext
from tune.verification import verify

log = logging.getLogger(__name__)


class SweepRun:
    """A sweep in its directory, begun or resumed."""

    def __init__(
        self,
        plan: Plan,
        run_dir: Path,
        backbone: Backbone,
        version: DatasetVersion,
        environment: Mapping[str, str],
    ) -> None:
        """Write or resume the sweep's records, and tokenize the rows of its trials.

        Args:
            environment: variables of the trials' processes, where they are not set.

        Raises:
            InputError: no trial fits on the cluster, or the records are damaged.
            ConfigError: the directory holds a sweep of other settings.
        """
        settings, config = plan.settings, plan.config
        available = max_concurrent_trials(plan.widest)
        self.plan, self.run_dir = plan, run_dir
        self._concurrent = min(config.concurrent or available, available)
        self._past = begin_sweep(plan, run_dir, version.version, self._concurrent)
        log.info(
            "sweep: %d trials of %s on dataset %s, up to %d epochs each, %d at the same time; %s",
            config.trials,
            config.search,
            version.version,
            plan.epochs,
            self._concurrent,
            run_dir,
        )
        task = make_task(settings.train, settings.model, backbone, version)
        for remark in summarize_splits(version, task).remarks():
            log.warning("sweep: %s", remark)
        self._context = TrialContext(
            settings,
            run_dir,
            version.path,
            config.modes,
            {split: tokenize_split(version, split, task) for split in ("train", "validation")},
            exchanges_weights=config.exchanges_weights,
            environment=dict(environment),
        )

    def search(self, warm: Sequence[Sweep]) -> bool:
        """Try configurations until the budget is spent, and track each trial.

        Args:
            warm: earlier sweeps whose trials the search is to know.

        Returns:
            Whether no configuration of the space is left.

        Raises:
            InputError: no trial has a value.
        """
        with TrialTracking(self.plan.settings, self.run_dir) as tracking:
            exhausted = search(
                self.plan, self._context, self._past, warm, self._concurrent, tracking.follow
            )
        sweep = read_sweep(self.run_dir)
        if not ranked(sweep):
            raise without_value(self.plan, sweep)
        return exhausted

    def verify(self) -> Verification | None:
        """Train the best configurations again with new seeds, and choose one.

        Returns:
            None: `sweep.verify_best` is 0.
        """
        if not self.plan.config.verify_best:
            return None
        return verify(self.plan, self._context, read_sweep(self.run_dir), self._concurrent)
