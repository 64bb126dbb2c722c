"""The plan of a sweep, checked before anything starts, and the sweep's record of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from finsent.errors import ConfigError
from finsent.modeling.backbone import Backbone
from finsent.records import JsonObject
from finsent.same_settings import check_same
from finsent.training.config import TrainConfig
from tune.config import SweepConfig
from tune.records import SWEEP, Objective, Params, Sweep, SweepRecord, read_sweep
from tune.samplers import check_search
from tune.schedulers import make_scheduler
from tune.settings import SweepSettings
from tune.space import Space, with_values
from tune.space_parser import check_configuration, parse_space
from tune.storage import masked_url
from tune.study import storage_url

log = logging.getLogger(__name__)

# Settings that a resumed sweep must not change; others may change, such as the number of trials.
_FIXED_SETTINGS = (
    "space",
    "metric",
    "objectives",
    "search",
    "seed",
    "scheduler",
    "grace_epochs",
    "reduction",
)
_WORKER_SETTINGS = ("num_workers", "cpus_per_worker", "gpus_per_worker")


@dataclass(frozen=True)
class Plan:
    """A checked sweep."""

    settings: SweepSettings
    space: Space
    first: list[Params]  # configurations to try before any other
    epochs: int  # maximum of a trial
    default: Params | None  # the settings without any change, where they are in the space

    @property
    def config(self) -> SweepConfig:
        """The section `sweep`."""
        return self.settings.sweep

    @property
    def objectives(self) -> list[Objective]:
        """All objectives, the metric first."""
        modes = self.config.modes
        return [Objective.model_validate({"name": n, "mode": m}) for n, m in modes.items()]

    @property
    def widest(self) -> TrainConfig:
        """The section `train` with the most workers, CPUs and GPUs that a trial may have."""
        largest = {}
        for parameter in self.space.parameters:
            section, _, name = parameter.key.partition(".")
            if section == "train" and name in _WORKER_SETTINGS:
                largest[name] = max(parameter.boundary_values(), key=lambda value: np.max(value))
        # Not validated: an upper bound, and no trial needs to have all of these values.
        return self.settings.train.model_copy(update=largest)


def make_plan(settings: SweepSettings, backbone: Backbone) -> Plan:
    """Check a sweep's settings, without Ray.

    Raises:
        ConfigError: a setting of the section `sweep` is wrong. One line that names it.
    """
    config = settings.sweep
    space = parse_space(config.space, settings)
    check_search(config, space)
    epochs = _max_epochs(settings, space)
    make_scheduler(config, space, epochs, [])
    default = _default_configuration(settings, space, backbone)
    first = [dict(params) for params in config.known]
    for params in first:
        _check_values(settings, params)
    if config.default_first and default is not None and default not in first:
        first.insert(0, default)
    if config.default_first and default is None:
        log.info("sweep: the settings without any change are outside the space, and are no trial")
    return Plan(settings, space, first, epochs, default)


def _max_epochs(settings: SweepSettings, space: Space) -> int:
    """Return the epochs of the longest trial."""
    for parameter in space.parameters:
        if parameter.key == "train.epochs":
            return int(max(parameter.choices or (parameter.high,)))
    return settings.train.epochs


def _check_values(settings: SweepSettings, params: Mapping[str, Any]) -> None:
    try:
        with_values(settings, params)
    except ConfigError as error:
        raise ConfigError(f"sweep.known: {json.dumps(params, default=str)}: {error}") from None


def _default_configuration(
    settings: SweepSettings, space: Space, backbone: Backbone
) -> Params | None:
    """Return the space's configuration of the settings without any change.

    None where a setting is outside the space.
    """
    values = settings.model_dump(mode="json")
    if values["train"]["learning_rate"] is None:
        values["train"]["learning_rate"] = backbone.learning_rate
    params: Params = {}
    for parameter in space.parameters:
        if parameter.varies(params):
            params[parameter.key] = _nested_value(values, parameter.key)
    try:
        check_configuration(space, params, "")
    except ConfigError:
        return None
    return params


def _nested_value(settings: JsonObject, key: str) -> JsonValue:
    """Return a setting by its dotted key; None: a section is null."""
    value: Any = settings
    try:
        for name in key.split("."):
            value = value[name]
    except (LookupError, TypeError):
        return None
    setting: JsonValue = value
    return setting


# --- sweep.json ----------------------------------------------------------------------------------


def sweep_identity(run_dir: Path) -> str | None:
    """Return the name and start of a directory's sweep; None where it has no sweep."""
    if not (run_dir / SWEEP).is_file():
        return None
    sweep = read_sweep(run_dir)
    return f"{sweep.name} of {sweep.settings.created}"


def begin_sweep(plan: Plan, run_dir: Path, dataset_version: str, concurrent: int) -> Sweep:
    """Write `sweep.json` of a new or a resumed sweep, and return the sweep's state.

    Raises:
        ConfigError: the existing sweep has other settings.
        InputError: the existing sweep is damaged.
    """
    config = plan.config
    past = _check_same_settings(run_dir, plan.settings, dataset_version)
    record = SweepRecord(
        name=run_dir.name,
        metric=config.metric,
        mode=plan.objectives[0].mode,
        objectives=plan.objectives,
        space=plan.space.record(),
        scheduler=config.scheduler,
        search=config.search,
        max_epochs=plan.epochs,
        trials=config.trials,
        concurrent=concurrent,
        created=past.created if past and past.created else _now(),
        storage=masked_url(storage_url(config, run_dir)),  # others may read the file
        study_name=config.study or run_dir.name,
        attempts=[*(past.attempts if past else []), datetime.now(UTC).timestamp()],
        config=_fixed_settings(plan.settings),
        recipe=_recipe(plan.settings),
        dataset_version=dataset_version,
    )
    record.write(run_dir / SWEEP)
    return read_sweep(run_dir)


def end_sweep(run_dir: Path, *, exhausted: bool = False) -> None:
    """Write into `sweep.json` that the search has ended.

    Args:
        exhausted: whether the search has tried each configuration of the space.
    """
    record = SweepRecord.read(run_dir / SWEEP)
    record.replaced(finished=_now(), exhausted=exhausted).write(run_dir / SWEEP)


def check_run_dir(settings: SweepSettings, run_dir: Path) -> None:
    """Check that a sweep may start or resume in a directory, before anything is written there.

    Raises:
        UserError: it may not.
    """
    _check_same_settings(run_dir, settings, None)


def _check_same_settings(
    run_dir: Path, settings: SweepSettings, dataset_version: str | None
) -> SweepRecord | None:
    """Return the record of the sweep to resume; None for a new sweep.

    Args:
        dataset_version: None: not known yet.

    Raises:
        ConfigError: the existing sweep has other settings.
        InputError: the existing sweep is damaged.
    """
    if not (run_dir / SWEEP).is_file():
        return None
    past = SweepRecord.read(run_dir / SWEEP)
    recorded = {"sweep": past.config, **past.recipe, "dataset_version": past.dataset_version}
    current = {"sweep": _fixed_settings(settings), **_recipe(settings)}
    version = {} if dataset_version is None else {"dataset_version": dataset_version}
    check_same(recorded, current | version, run_dir.name, mappings=["sweep.space"])
    return past


def _fixed_settings(settings: SweepSettings) -> Params:
    values = {name: getattr(settings.sweep, name) for name in _FIXED_SETTINGS}
    as_json: Params = json.loads(json.dumps(values))  # as the file has them
    return as_json


def _recipe(settings: SweepSettings) -> dict[str, Params]:
    return {
        "train": settings.train.model_dump(mode="json"),
        "model": settings.model.model_dump(mode="json"),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
