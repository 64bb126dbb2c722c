"""Ray Tune's `Tuner` for a sweep, and running it within this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from finsent.adapters.ray_tune import limit_pending_trials, silence_output
from finsent.cluster import Cluster
from finsent.daemon_call import call_in_daemon
from tune.orphaned_groups import remove_last_orphaned_groups, remove_orphaned_groups
from tune.population import Population
from tune.trial import trial_name

_POLL_SECONDS = 0.5
_CLOSE_SECONDS = 60  # for Ray Tune to end its trials
_DEATH_SECONDS = 10  # for the trainings to die
_TINY_MEMORY = 1 << 20  # bytes; a trial itself needs no CPU, its workers request theirs


def make_tuner(
    trainable: Any,
    source: Searcher | Population,
    scheduler: TrialScheduler,
    folder: Path,
    concurrent: int,
    max_failures: int,
    *,
    callbacks: Sequence[Callback] = (),
    stop: Stopper | None = None,
) -> tune.Tuner:
    """Return a Tuner whose trials reserve no CPU, as their workers request CPUs.

    Args:
        source: of configurations. A population's trials are paused for each other, and a paused
            trial must not count as running. So its concurrency is a resource: the machines' memory,
            in equal shares.
        folder: of Ray Tune's own files.
        max_failures: how often a trial restarts that has lost its process.
    """
    silence_output()
    searcher = None if isinstance(source, Population) else source
    memory, param_space = _TINY_MEMORY, None
    if isinstance(source, Population):
        limit_pending_trials(concurrent)
        param_space = {"trial": tune.grid_search(source.configs)}
        memories = [node.memory for node in Cluster.connected().nodes]
        memory = memory_share(memories, concurrent) - _TINY_MEMORY
    return tune.Tuner(
        tune.with_resources(trainable, {"CPU": 0, "memory": memory}),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1 if searcher else 1,  # a searcher ends the search itself
            max_concurrent_trials=concurrent if searcher else None,
            reuse_actors=searcher is not None,
            trial_name_creator=_name_trial,
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


def memory_share(memories: Sequence[int], count: int) -> int:
    """Return the smallest share of memory that fits at most `count` times on the machines.

    Args:
        memories: of the machines, in bytes; a share is on one machine.
    """
    shares = sorted({memory // part for memory in memories for part in range(1, count + 1)} - {0})
    fitting = (share for share in shares if sum(memory // share for memory in memories) <= count)
    return next(fitting, max(memories))


def _name_trial(trial: Any) -> str:
    """Return a trial's name. Ray Tune asks once; later the config may be another trial's."""
    return trial_name(trial.config.get("trial", trial.config)["number"])


def run_tuner(
    tuner: tune.Tuner, on_poll: Callable[[], None], close: Callable[[], None]
) -> tune.ResultGrid:
    """Run a Tuner until it ends, and remove the placement groups of stopped trials meanwhile.

    The Tuner runs in a thread: in the main thread Ray Tune would replace the handler of SIGINT.

    Args:
        on_poll: called in this thread twice per second.
        close: makes the Tuner end; called when this thread is interrupted.
    """
    future = call_in_daemon("ray-tune", tuner.fit)
    try:
        while not future.done():
            wait([future], timeout=_POLL_SECONDS)
            remove_orphaned_groups()
            on_poll()
        return future.result()
    except BaseException:
        close()
        wait([future], timeout=_CLOSE_SECONDS)
        raise
    finally:
        remove_last_orphaned_groups(_DEATH_SECONDS)
