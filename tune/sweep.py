"""Running a sweep's trials by Ray Tune, within its budget, as far as it is let."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Stopper
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from finsent.adapters.ray_core import live_nodes
from tune.config import SweepConfig
from tune.ledger import Ledger, LedgerCallback
from tune.leftovers import give_back, give_back_all
from tune.plan import Plan, identity
from tune.progress import SweepBar
from tune.records import Sweep, read_sweep
from tune.schedulers import scheduler_of
from tune.search import Population, StudySearch
from tune.stats import WITHOUT_VALUE
from tune.study import add_past, claim, open_study
from tune.trial import STOP, TRIALS, Work, drop_checkpoints, run_trial, trial_name

log = logging.getLogger(__name__)

Trainable = Callable[[Mapping[str, Any], Any], None]
Follow = Callable[[str, int, dict[str, Any]], None]

_LOOK = 0.5  # seconds between two looks at a running search
_CLOSING = 60  # seconds for Ray Tune to end its trials
_DYING = 10  # seconds for what they have started
_TINY_MEMORY = 1 << 20  # bytes; a trial itself needs no CPU: its workers ask for theirs


class Budget(Stopper):
    """Ends a search by its limits, or when it is told to.

    Args:
        epochs: made before.
        seconds: spent before.
        stop: a file that is made then; trials in the middle of an epoch look for it.
    """

    def __init__(self, config: SweepConfig, epochs: int, seconds: float, stop: Path) -> None:
        self._config, self._stop = config, stop
        self.clear()
        self.epochs, self._begun = epochs, time.monotonic() - seconds
        self._told = threading.Event()
        self.reason: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune saves its arguments; nobody loads them

    def __call__(self, *_: Any) -> bool:
        """No trial is ended for itself."""
        return False

    def clear(self) -> None:
        """Let trials go on that begin from now on."""
        self._stop.unlink(missing_ok=True)

    def end(self) -> None:
        """End the search as soon as may be."""
        self._told.set()

    def stop_all(self) -> bool:
        """Whether the search is over."""
        limits = self._config
        if limits.max_epochs is not None and self.epochs >= limits.max_epochs:
            self.reason = f"sweep.max_epochs={limits.max_epochs}"
        elif (
            limits.max_seconds is not None and time.monotonic() - self._begun >= limits.max_seconds
        ):
            self.reason = f"sweep.max_seconds={limits.max_seconds:g}"
        over = self.reason is not None or self._told.is_set()
        if over:
            self._stop.touch()
        return over


def search(
    plan: Plan,
    work: Work,
    past: Sweep,
    warm: Sequence[Sweep],
    concurrent: int,
    follow: Follow | None = None,
    trainable: Trainable = run_trial,
) -> bool:
    """Try configurations until the budget is spent; what comes of them stands in the records.

    Args:
        past: what the sweep has done before.
        warm: sweeps whose trials the search is to know.
        concurrent: trials at the same time.
        follow: called in this thread with each event of the records.
        trainable: what a trial does; has the signature of `run_trial`.

    Returns:
        Whether it ended because no configuration of the space is left.

    Raises:
        BaseException: whatever interrupts this thread, when the trials have been ended.
    """
    config, run_dir = plan.config, past.run_dir
    ledger = Ledger(run_dir)
    searcher = _searcher(plan, past, warm, lambda number: ledger.write("repeat", number))
    spent = sum(len(t.epochs) for t in past.trials)
    budget = Budget(config, spent, spent_seconds(past), run_dir / STOP)
    if budget.stop_all():
        budget.clear()
        log.info("sweep: its budget was spent before (%s)", budget.reason)
        return False
    events: deque[tuple[str, int, dict[str, Any]]] = deque()
    population = Population(searcher) if config.scheduler == "pbt" else None

    def tell(event: str, number: int, fields: dict[str, Any]) -> None:
        budget.epochs += event == "epoch"
        if population is not None:
            population.event(event, number, fields)
        events.append((event, number, fields))

    recorder = LedgerCallback(ledger, config.modes, past.trials, config.scheduler, tell)
    scheduler = scheduler_of(config, plan.space, plan.epochs, past.trials)
    attempt = len(past.settings.get("attempts", [])) or 1
    tuner = make_tuner(
        tune.with_parameters(trainable, work=work),
        searcher if population is None else population,
        scheduler,
        run_dir / "tune" / f"search-{attempt}",
        concurrent,
        config.max_failures,
        callbacks=[recorder],
        stop=budget,
    )

    def show() -> None:
        while events:
            event = events.popleft()
            bar.event(*event)
            if follow is not None:
                follow(*event)
            if event[0] == "end" and event[2]["status"] != "interrupted":
                _tidy(work, event[1], event[2])
        bar.tick()

    def close() -> None:
        searcher.close()
        budget.end()

    with SweepBar(config, past.trials) as bar:
        try:
            run_tuner(tuner, show, close)
        finally:
            recorder.interrupt(budget.reason or "the sweep was interrupted")
            show()
            budget.clear()
    _tidy_all(work, read_sweep(run_dir))
    return searcher.exhausted


def _searcher(
    plan: Plan, past: Sweep, warm: Sequence[Sweep], on_repeat: Callable[[int], None]
) -> StudySearch:
    config = plan.config
    study = open_study(config, past.run_dir, len(past.trials))
    claim(study, identity(past.run_dir))
    for each in warm:
        added = add_past(study, plan.space, each, config)
        log.info("sweep: knows %d trials of %s", added, each.run_dir)
    return StudySearch(study, plan.space, config, past.trials, plan.first, on_repeat)


def _tidy(work: Work, number: int, fields: Mapping[str, Any]) -> None:
    """A trial that has ended without a model does not go on: its checkpoints only take room."""
    if fields["status"] in ("stopped", *WITHOUT_VALUE) and not work.exchanges:
        drop_checkpoints(work.run_dir / TRIALS / f"{number:04d}")


def _tidy_all(work: Work, sweep: Sweep) -> None:
    """Delete what no trial resumes from, once no trial runs.

    A stopped trial's process may have written one more checkpoint before it was killed.
    """
    for trial in sweep.trials:
        _tidy(work, trial.number, {"status": trial.status})
    # With a larger budget an interrupted trial goes on, maybe from another's checkpoint.
    if work.exchanges and "interrupted" not in {trial.status for trial in sweep.trials}:
        for place in (sweep.run_dir / TRIALS).glob("*"):
            drop_checkpoints(place)


def spent_seconds(past: Sweep) -> float:
    """Seconds of earlier tries of a sweep: each from its begin to its last event."""
    times = sorted(
        time
        for trial in past.trials
        for time in [trial.started, trial.ended, *(epoch.time for epoch in trial.epochs)]
        if time is not None
    )
    total = 0.0
    for begin, following in pairwise(past.settings.get("attempts", [])):
        inside = [time for time in times if begin <= time < following]
        total += inside[-1] - begin if inside else 0.0
    return total


# --- Ray Tune -----------------------------------------------------------------------------------


def make_tuner(
    trainable: Any,
    source: Searcher | Population,
    scheduler: TrialScheduler,
    folder: Path,
    concurrent: int,
    max_failures: int,
    *,
    callbacks: Sequence[Any] = (),
    stop: Any = None,
) -> tune.Tuner:
    """A Tuner whose trials take no CPU themselves, as their workers ask for it.

    Args:
        source: of configurations. With a population trials are paused for each other, and those
            must not count as running: room for them is a resource, the machines' memory, in equal
            shares.
        folder: of Ray Tune's own files.
        max_failures: how often a trial starts again that has lost its process.
    """
    # Read by Ray Tune when it starts; there is no argument for it.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrent)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # prints whatever `verbose` says
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # tracebacks; the records have the reason
    searcher = None if isinstance(source, Population) else source
    memory, space = _TINY_MEMORY, None
    if isinstance(source, Population):
        space = {"trial": tune.grid_search(source.configs)}
        memories = [node.memory for node in live_nodes()]
        memory = share_of(memories, concurrent) - _TINY_MEMORY
    return tune.Tuner(
        tune.with_resources(trainable, {"CPU": 0, "memory": memory}),
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1 if searcher else 1,  # a searcher says when it is enough
            max_concurrent_trials=concurrent if searcher else None,
            reuse_actors=searcher is not None,
            trial_name_creator=_trial_name,
            trial_dirname_creator=str,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[*callbacks],
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=max_failures),
            verbose=0,
        ),
    )


def share_of(memories: Sequence[int], count: int) -> int:
    """Of which some machines hold `count` together, or as many fewer as must be.

    Args:
        memories: of the machines; a share lies on one of them.
    """
    shares = sorted({memory // part for memory in memories for part in range(1, count + 1)} - {0})
    fitting = (one for one in shares if sum(memory // one for memory in memories) <= count)
    return next(fitting, max(memories))


def _trial_name(trial: Any) -> str:
    """Given once, when Ray Tune makes the trial: later its config may be another's."""
    return trial_name(trial.config.get("trial", trial.config)["number"])


def run_tuner(tuner: tune.Tuner, show: Callable[[], None], close: Callable[[], None]) -> Any:
    """Wait for a Tuner's `ResultGrid`.

    In a thread of its own: in the main one Ray Tune takes over SIGINT. What stopped trials held of
    the cluster is given back meanwhile.

    Args:
        show: called every now and then.
        close: makes the Tuner end; called when this thread is interrupted.
    """
    pool = ThreadPoolExecutor(1, "ray-tune")
    future = pool.submit(tuner.fit)
    try:
        while not future.done():
            wait([future], timeout=_LOOK)
            give_back()
            show()
        return future.result()
    except BaseException:
        close()
        wait([future], timeout=_CLOSING)
        raise
    finally:
        pool.shutdown(wait=False)
        give_back_all(_DYING)
