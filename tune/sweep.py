"""The search of a sweep: trials by Ray Tune, within the budget."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ray import tune

from finsent.job_metrics import JobMetrics
from tune.budget import Budget, spent_epochs, spent_seconds
from tune.exported_metrics import SweepMetrics
from tune.plan import Plan, sweep_identity
from tune.population import Population
from tune.progress import SweepBar
from tune.records import Sweep, read_sweep
from tune.schedulers import make_scheduler
from tune.search import StudySearch
from tune.stats import WITHOUT_VALUE
from tune.study import add_earlier_sweep, claim_study, open_study
from tune.trial import STOP_FILE, TRIALS_DIR, TrialContext, run_trial, trial_dir
from tune.trial_events import EpochEnded, Event, TrialEnded, TrialStatus
from tune.trial_log import TrialLog, TrialLogCallback
from tune.tuner import make_tuner, run_tuner
from tune.weight_exchange import drop_checkpoints

log = logging.getLogger(__name__)

Trainable = Callable[[Mapping[str, Any], Any], None]
Follow = Callable[[Event], None]


def search(
    plan: Plan,
    context: TrialContext,
    past: Sweep,
    warm: Sequence[Sweep],
    concurrent: int,
    follow: Follow = lambda _: None,
    trainable: Trainable = run_trial,
) -> bool:
    """Try configurations until the budget is spent; the records have the results.

    Args:
        past: the sweep's existing state.
        warm: earlier sweeps whose trials the search learns from.
        concurrent: trials at the same time.
        follow: called in this thread with each event of the records.
        trainable: the trials' function; has the signature of `run_trial`.

    Returns:
        Whether the search has tried each configuration of the space.

    Raises:
        BaseException: an interruption of this thread, after the trials have ended.
    """
    config, run_dir = plan.config, past.run_dir
    trial_log = TrialLog(run_dir)
    searcher = _make_searcher(plan, past, warm, trial_log.write_repeat)
    budget = Budget(config, spent_epochs(past), spent_seconds(past), run_dir / STOP_FILE)
    if _is_spent(budget):
        return False
    population = Population(searcher) if config.exchanges_weights else None
    events = _EventQueue(budget, population)
    recorder = TrialLogCallback(trial_log, config.modes, past.trials, config.scheduler, events.put)
    tuner = make_tuner(
        tune.with_parameters(trainable, context=context),
        population or searcher,
        make_scheduler(config, plan.space, plan.epochs, past.trials),
        run_dir / "tune" / f"search-{len(past.settings.attempts) or 1}",
        concurrent,
        config.max_failures,
        callbacks=[recorder],
        stop=budget,
    )

    def close() -> None:
        searcher.close()
        budget.end()

    with SweepBar(config, past.trials) as bar, JobMetrics(run=run_dir.name) as job_metrics:
        metrics = SweepMetrics(job_metrics, config.metric)
        show_events = partial(_show_events, events, bar, metrics, follow, context)
        try:
            run_tuner(tuner, show_events, close)
        finally:
            recorder.interrupt(budget.reason or "the sweep was interrupted")
            show_events()
            budget.clear()
    _tidy_sweep(context, read_sweep(run_dir))
    return searcher.exhausted


def _is_spent(budget: Budget) -> bool:
    """Return whether earlier runs of the sweep have spent the budget, and say so."""
    if not budget.stop_all():
        return False
    budget.clear()
    log.info("sweep: its budget was spent before (%s)", budget.reason)
    return True


class _EventQueue:
    """Events on their way from Ray Tune's thread to the thread that shows them."""

    def __init__(self, budget: Budget, population: Population | None) -> None:
        self._budget, self._population = budget, population
        self._events: deque[Event] = deque()

    def put(self, event: Event) -> None:
        """Count an event, tell the population, and queue the event."""
        self._budget.epochs += isinstance(event, EpochEnded)
        if self._population is not None:
            self._population.on_event(event)
        self._events.append(event)

    def get_all(self) -> Iterator[Event]:
        """Yield and remove the queued events."""
        while self._events:
            yield self._events.popleft()


def _show_events(
    events: _EventQueue, bar: SweepBar, metrics: SweepMetrics, follow: Follow, context: TrialContext
) -> None:
    for event in events.get_all():
        bar.on_event(event)
        metrics.on_event(event, bar)
        follow(event)
        if isinstance(event, TrialEnded):
            _tidy_trial(context, event.trial, event.status)
    bar.refresh()


def _make_searcher(
    plan: Plan, past: Sweep, warm: Sequence[Sweep], on_repeat: Callable[[int], None]
) -> StudySearch:
    config = plan.config
    study = open_study(config, past.run_dir, len(past.trials))
    claim_study(study, sweep_identity(past.run_dir))
    for earlier in warm:
        added = add_earlier_sweep(study, plan.space, earlier, config)
        log.info("sweep: learned from %d trials of %s", added, earlier.run_dir)
    return StudySearch(study, plan.space, config, past.trials, plan.first, on_repeat)


def _tidy_trial(context: TrialContext, number: int, status: TrialStatus) -> None:
    """Delete the checkpoints of a trial that ended without a model: it never resumes."""
    if status in ("stopped", *WITHOUT_VALUE) and not context.exchanges_weights:
        drop_checkpoints(trial_dir(context.run_dir, number))


def _tidy_sweep(context: TrialContext, sweep: Sweep) -> None:
    """Delete the checkpoints that no trial resumes from, once no trial runs.

    A stopped trial's process may have written one more checkpoint before it was killed.
    """
    for trial in sweep.trials:
        _tidy_trial(context, trial.number, trial.status)
    # With a larger budget an interrupted trial resumes, maybe from another trial's checkpoint.
    if context.exchanges_weights and "interrupted" not in {t.status for t in sweep.trials}:
        for folder in (sweep.run_dir / TRIALS_DIR).glob("*"):
            drop_checkpoints(folder)
