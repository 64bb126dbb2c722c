"""One trial, in a process of its own on some node: `ray_jobs.train`'s loop on a trial's settings.

What it reports to Ray Tune:
- after each epoch: `epoch` (from 1), the epoch's finite metrics, `epoch_seconds`;
- at its end: `final` (values by objective), `model_dir`, the metric and the last epoch once more;
- where it fails: `failure` (why), `cause` (of `tune.records.CAUSES`, where its settings are to
  blame), `full` (where no trial could write there), the worst value of the metric, and the last
  epoch. It does not raise: the same would come again, and only a lost process is worth another try.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finsent.disk import DiskError, find_disk_error
from finsent.errors import DivergenceError, InputError, MemoryShortageError, UserError
from finsent.files import read_json, write_json
from finsent.training.metrics_log import read_epochs
from tune.outcomes import CAUSE, FAILURE, FINAL, FULL
from tune.records import DIVERGED, MEMORY
from tune.settings import SweepSettings
from tune.space import with_values
from tune.training import Training

TRIALS = "trials"
RESULT = "trial.json"  # in a trial's directory, once it has ended by itself
STOP = ".stop"  # in the sweep's, when no trial is to go on
_WORST = {"max": -1e9, "min": 1e9}  # finite: Optuna and Ray's schedulers compute with it
_REASON = 300  # characters
_LOOK = 0.5  # seconds between two looks at a training elsewhere
_SOURCE = "source.json"  # in a checkpoint of PBT: where the weights lie, and of which epoch
_PARAMS = "params.json"  # of PBT: under which a directory's weights are trained
_OWN_ROWS = ("data.", "model.")  # settings under which a trial's tokenized rows are its own


@dataclass(frozen=True)
class Work:
    """What the trials of a sweep have in common."""

    settings: SweepSettings
    run_dir: Path  # of the sweep; seen by all nodes
    version_dir: Path  # the dataset version, where no trial makes its own
    modes: dict[str, str]  # by objective; the metric first
    datasets: dict[str, Any]  # tokenized splits by name, for trials that leave data and model alone
    exchanges: bool = False  # weights go from trial to trial (PBT)
    environment: dict[str, str] = field(default_factory=dict)  # where it is not set
    training: type[Any] = Training  # what trains: an actor's class with the methods of Training

    @property
    def metric(self) -> str:
        """The first objective."""
        return next(iter(self.modes))


def run_trial(config: Mapping[str, Any], work: Work) -> None:
    """Ray Tune's trainable.

    Args:
        config: `number`, `params`, and maybe `place`, the name of its directory.
    """
    config = own_config(config, tune.get_context().get_trial_name())
    reports = _Reports(work)
    try:
        _run(config, work, reports)
    except ray.exceptions.RayActorError:  # a process or a node was lost
        raise
    except Exception as error:  # whatever it is, it is this trial's end and not the sweep's
        full = find_disk_error(error)
        reports.failed(reason(full or error), None if full else cause(error), full)


def trial_name(number: int) -> str:
    """What Ray Tune calls a trial."""
    return f"trial-{number:04d}"


def own_config(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A trial's config, where PBT may have put another's in its place: the number stays.

    Args:
        name: of `trial_name`.
    """
    return {**config.get("trial", config), "number": int(name.rpartition("-")[2])}


class _Reports:
    """What a trial tells Ray Tune; always with `epoch` and the metric, as schedulers want them."""

    def __init__(self, work: Work) -> None:
        self._work, self._epoch = work, 0

    def epoch(self, line: Mapping[str, Any], place: Path) -> None:
        """An epoch, by its line of the journal; with PBT also where its weights lie."""
        metric = self._work.metric
        found = {
            key: value
            for key, value in line.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        if metric not in found:
            raise DivergenceError(f"{metric} is not a finite number after epoch {line['epoch']}")
        self._epoch = line["epoch"]
        if not self._work.exchanges:
            tune.report(found)
            return
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / _SOURCE, {"place": str(place), "epoch": self._epoch})
            tune.report(found, checkpoint=tune.Checkpoint.from_directory(folder))

    def finished(self, found: Mapping[str, Any]) -> None:
        """The trial's end; see the module's docstring."""
        for name, value in found[FINAL].items():
            if not math.isfinite(value):
                raise DivergenceError(f"{name} is not a finite number at the trial's end")
        tune.report({**found, "epoch": self._epoch})

    def failed(self, why: str, blamed: str | None, full: DiskError | None) -> None:
        """The same, where it failed.

        Args:
            blamed: the cause, where the settings are to blame.
            full: every trial would meet it, so that it ends the sweep.
        """
        worst = _WORST[self._work.modes[self._work.metric]]
        found = {FAILURE: why, self._work.metric: worst, "epoch": self._epoch}
        found |= {CAUSE: blamed} if blamed else {}
        tune.report(found | ({FULL: full.arguments} if full else {}))


def _run(config: Mapping[str, Any], work: Work, reports: _Reports) -> None:
    settings = with_values(work.settings, config["params"])
    if work.exchanges:  # what others may take over stays
        train = settings.train.replaced(keep_every_epochs=settings.sweep.grace_epochs)
        settings = settings.replaced(train=train)
    place = _place(config, work)
    if (place / RESULT).is_file():  # the driver was killed before it knew
        _Teller(place, lambda line: reports.epoch(line, place), saved=False).look()
        reports.finished(read_json(place / RESULT))
        return
    found = _apart(settings, config["params"], work, place, lambda line: reports.epoch(line, place))
    found[work.metric] = found[FINAL][work.metric]
    write_json(place / RESULT, found)
    if not work.exchanges:
        drop_checkpoints(place)
    reports.finished(found)


def _apart(
    settings: SweepSettings,
    params: Mapping[str, Any],
    work: Work,
    place: Path,
    on_epoch: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Train in a process of its own, and tell of epochs as they come.

    Ray Tune stops a trial by ending this thread, and keeps the process for another: what trains
    is then killed, see `tune.leftovers`. And Ray Tune's placement group would hold Ray Data's tasks
    of this process.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote: Any = ray.remote(num_cpus=0)(work.training).options(scheduling_strategy=here)
    training = remote.remote(work.environment)
    own = settings.train.distill_folds or any(key.startswith(_OWN_ROWS) for key in params)
    datasets = {} if own else work.datasets
    teller = _Teller(place, on_epoch, saved=work.exchanges)
    try:
        done = training.run.remote(settings, params, work.version_dir, datasets, place, work.modes)
        while not ray.wait([done], timeout=_LOOK)[0]:
            if (work.run_dir / STOP).exists():  # Ray Tune would wait 10 seconds for a report
                sys.exit()  # this thread, as Ray Tune ends it
            teller.look()
        values, model_dir = ray.get(done)
        teller.look()
    finally:
        ray.kill(training)
    return {FINAL: values, "model_dir": str(model_dir)}


class _Teller:
    """Tells somebody each epoch of a run's journal once, also those before the run went on.

    Args:
        saved: the newest only when its checkpoint is there.
    """

    def __init__(
        self, place: Path, on_epoch: Callable[[dict[str, Any]], None], *, saved: bool
    ) -> None:
        self._place, self._on_epoch, self._saved, self._told = place, on_epoch, saved, 0

    def look(self) -> None:
        """Tell what is new."""
        from finsent.training.checkpoint import epoch_checkpoint_name

        lines = [line.model_dump(mode="json") for line in read_epochs(self._place)]
        if (
            self._saved
            and lines
            and not (self._place / epoch_checkpoint_name(lines[-1]["epoch"])).is_dir()
        ):
            lines.pop()
        for line in lines:
            if line["epoch"] > self._told:
                self._told = line["epoch"]
                self._on_epoch(line)


def _place(config: Mapping[str, Any], work: Work) -> Path:
    """The trial's own directory; with another's weights in it where PBT says so."""
    place: Path = work.run_dir / config.get("place", f"{TRIALS}/{config['number']:04d}")
    if not work.exchanges:
        return place
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:  # new, or the driver was: it goes on where it was last
        last = max(place.parent.glob(f"{place.name}-*"), key=_turn, default=place)
        return _settled(last, place, config["params"])
    with checkpoint.as_directory() as folder:
        found = read_json(Path(folder) / _SOURCE)
    source = Path(found["place"])
    if source.name.split("-")[0] == place.name:  # its own, of before it was paused
        return source
    taken = _take_over(source, place, found["epoch"])
    return _settled(taken, place, config["params"])


def _settled(last: Path, place: Path, params: Mapping[str, Any]) -> Path:
    """Where a trial trains under its settings.

    When the driver was killed, a trial may have been given others that it has not begun with: it
    goes on with its own weights then.
    """
    file = last / _PARAMS
    if file.is_file() and read_json(file) != params:
        last = _take_over(last, place)
        file = last / _PARAMS
    last.mkdir(parents=True, exist_ok=True)
    write_json(file, dict(params))
    return last


def _turn(place: Path) -> int:
    return int(place.name.rpartition("-")[2])


def _take_over(source: Path, place: Path, epoch: int | None = None) -> Path:
    """A new directory for a trial, whose run goes on from another's checkpoint.

    Args:
        epoch: whose; where it is no more, and by default, the newest.
    """
    from finsent.files import staged_dir
    from finsent.training.checkpoint import find_damage, latest_valid, list_checkpoints

    taken = len(list(place.parent.glob(f"{place.name}-*")))
    following = place.with_name(f"{place.name}-{taken + 1}")
    ends = [one for one in list_checkpoints(source) if (one.epoch, one.step) == (epoch, 0)]
    saved = ends[0] if ends and find_damage(ends[0].folder) is None else latest_valid(source)
    if saved is None:
        raise InputError(f"{source}: has no checkpoint to go on from")
    folder = saved.folder
    with staged_dir(following / folder.name) as staging:
        shutil.copytree(folder, staging, dirs_exist_ok=True)
    return following


def drop_checkpoints(place: Path) -> None:
    """Delete the checkpoints of a trial that does not go on."""
    for folder in place.glob("checkpoint_[es]*_[0-9]*"):
        shutil.rmtree(folder, ignore_errors=True)


def reason(error: BaseException) -> str:
    """Why a trial failed, in one line: the innermost cause that says something."""
    found = _innermost(error)
    text = " ".join(str(found).split())
    text = text if isinstance(found, UserError) else f"{type(found).__name__}: {text}"
    return text if len(text) <= _REASON else text[: _REASON - 3] + "..."


def cause(error: BaseException) -> str | None:
    """What kind of failure it is where the trial's settings are to blame, of `CAUSES`."""
    found = _innermost(error)
    if isinstance(found, DivergenceError):
        return DIVERGED
    kind = type(found)
    # By name: what watches a trial does without PyTorch.
    short = kind.__name__ == "OutOfMemoryError" and kind.__module__.startswith("torch")
    return MEMORY if short or isinstance(found, MemoryShortageError) else None


def _innermost(error: BaseException) -> BaseException:
    found, seen = error, set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        found = current
        failures = getattr(current, "worker_failures", None)
        inner = next(iter(failures.values()), None) if isinstance(failures, dict) else None
        current = inner or getattr(current, "cause", None) or current.__cause__
    return found
