"""What a sweep is going to do, checked before anything starts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from finsent.errors import ConfigError, InputError
from finsent.files import read_json, write_json
from finsent.modeling.backbone import Backbone
from finsent.training.config import TrainConfig
from tune.config import SweepConfig
from tune.records import SWEEP, Sweep, read_sweep
from tune.schedulers import scheduler_of
from tune.settings import SweepSettings
from tune.space import Space, check_point, parse, with_values
from tune.storage import shown
from tune.study import check_search, storage_url

log = logging.getLogger(__name__)

# What a sweep that goes on must have kept; all else may change, such as the number of trials.
_KEPT = (
    "space",
    "metric",
    "objectives",
    "search",
    "seed",
    "scheduler",
    "grace_epochs",
    "reduction",
)


@dataclass(frozen=True)
class Plan:
    """A checked sweep."""

    settings: SweepSettings
    space: Space
    first: list[dict[str, Any]]  # configurations to try before any other
    epochs: int  # of a trial that nothing stops, at most
    default: dict[str, Any] | None  # the settings without change, where they lie in the space

    @property
    def config(self) -> SweepConfig:
        """The section `sweep`."""
        return self.settings.sweep

    @property
    def widest(self) -> TrainConfig:
        """The settings of training with the most workers, CPUs and GPUs that a trial may have."""
        widest = {}
        for one in self.space.parameters:
            section, _, name = one.key.partition(".")
            if section == "train" and name in ("num_workers", "cpus_per_worker", "gpus_per_worker"):
                widest[name] = max(one.tried(), key=lambda value: np.max(value))
        return self.settings.train.replaced(**widest)


def make_plan(settings: SweepSettings, backbone: Backbone) -> Plan:
    """Check a sweep's settings. Needs no Ray.

    Raises:
        ConfigError: something in the section `sweep` is wrong. One line that names it.
    """
    config = settings.sweep
    space = parse(config.space, settings)
    check_search(config, space)
    highs = [int(one.high) for one in space.parameters if one.key == "train.epochs"]
    highs += [
        max(one.choices) for one in space.parameters if one.key == "train.epochs" and one.choices
    ]
    epochs = max(highs, default=settings.train.epochs)
    scheduler_of(config, space, epochs, [])
    default = _default_point(settings, space, backbone)
    first = [dict(params) for params in config.known]
    for params in first:
        _check_values(settings, params)
    if config.default_first and default is not None and default not in first:
        first.insert(0, default)
    if config.default_first and default is None:
        log.info("sweep: the settings as they are lie outside the space, and are not a trial")
    return Plan(settings, space, first, epochs, default)


def _check_values(settings: SweepSettings, params: Mapping[str, Any]) -> None:
    try:
        with_values(settings, params)
    except ConfigError as error:
        raise ConfigError(f"sweep.known: {json.dumps(params, default=str)}: {error}") from None


def _default_point(
    settings: SweepSettings, space: Space, backbone: Backbone
) -> dict[str, Any] | None:
    """The values that the space's parameters have without a sweep; None where one lies outside."""
    plain = settings.model_dump(mode="json")
    if plain["train"]["learning_rate"] is None:
        plain["train"]["learning_rate"] = backbone.learning_rate
    found: dict[str, Any] = {}
    for one in space.parameters:
        if one.holds(found):
            section, _, name = one.key.partition(".")
            place: Any = plain[section]
            for part in name.split("."):
                place = place.get(part) if isinstance(place, dict) else None
            found[one.key] = place
    try:
        check_point(space, found, "")
    except ConfigError:
        return None
    return found


def identity(run_dir: Path) -> str | None:
    """Which sweep a directory holds; None where there is none yet."""
    if not (run_dir / SWEEP).is_file():
        return None
    found = read_sweep(run_dir)
    return f"{found.name} of {found.settings.get('created')}"


def begin(plan: Plan, run_dir: Path, dataset_version: str, concurrent: int) -> Sweep:
    """Write `sweep.json`, or go on with the one that is there; returns what there is of the sweep.

    Raises:
        ConfigError: the sweep there has other settings.
        InputError: it is damaged.
    """
    config = plan.config
    mine = {**_own(plan.settings), "dataset_version": dataset_version}
    past = check_goes_on(run_dir, mine)
    record = {
        "name": run_dir.name,
        "metric": config.metric,
        "mode": config.mode,
        "objectives": [{"name": name, "mode": mode} for name, mode in config.modes.items()],
        "space": plan.space.body(),
        "scheduler": config.scheduler,
        "search": config.search,
        "max_epochs": plan.epochs,
        "trials": config.trials,
        "concurrent": concurrent,
        "created": past.get("created") or now(),
        "finished": None,
        "storage": shown(storage_url(config, run_dir)),  # others may read the file
        "study_name": config.study or run_dir.name,
        "attempts": [*past.get("attempts", []), datetime.now(UTC).timestamp()],
        **mine,
    }
    write_json(run_dir / SWEEP, record)
    return read_sweep(run_dir)


def _own(settings: SweepSettings) -> dict[str, Any]:
    """What a sweep that goes on must have kept."""
    return {
        "config": {name: getattr(settings.sweep, name) for name in _KEPT},
        "recipe": {
            "train": settings.train.model_dump(mode="json"),
            "model": settings.model.model_dump(mode="json"),
        },
    }


def check_goes_on(run_dir: Path, mine: Mapping[str, Any]) -> dict[str, Any]:
    """`sweep.json` of a sweep that goes on; empty where none is there.

    Args:
        mine: what it must have.

    Raises:
        ConfigError: the sweep there has other settings.
        InputError: it is damaged.
    """
    if not (run_dir / SWEEP).is_file():
        return {}
    past = read_json(run_dir / SWEEP)
    if not isinstance(past, dict):
        raise InputError(f"{run_dir / SWEEP}: damaged; choose another run.name")
    _check_same(run_dir, past, json.loads(json.dumps(mine)))
    return past


def check_run(settings: SweepSettings, run_dir: Path) -> None:
    """Whether a sweep may begin or go on in a directory, before anything is written there.

    Raises:
        UserError: it may not.
    """
    check_goes_on(run_dir, _own(settings))


def _check_same(run_dir: Path, past: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    flat_past, flat_mine = _flat(past), _flat(mine)
    for key, value in flat_mine.items():
        if flat_past.get(key) != value:
            name = key.replace("config.", "sweep.").replace("recipe.", "")
            raise ConfigError(
                f"run.name={run_dir.name!r}: is a sweep with {name}={flat_past.get(key)!r}, now "
                f"{value!r}; a sweep goes on only under its own settings: choose another name, or "
                "restore them"
            )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for top in ("config", "recipe"):
        for key, value in (values.get(top) or {}).items():
            found |= (
                {f"{top}.{key}.{name}": item for name, item in value.items()}
                if top == "recipe"
                else {f"{top}.{key}": value}
            )
    if "dataset_version" in values:
        found["dataset_version"] = values["dataset_version"]
    return found


def end(run_dir: Path, **fields: Any) -> None:
    """Write into `sweep.json` that the search has ended."""
    write_json(run_dir / SWEEP, {**read_json(run_dir / SWEEP), "finished": now(), **fields})


def now() -> str:
    """This moment, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
