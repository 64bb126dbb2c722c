"""Calibrations for domains that jobs are told to use, or that a service would miss."""

from __future__ import annotations

import logging
from pathlib import Path

from finsent.errors import InputError
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.registry.calibrations import Calibrations
from finsent.registry.registry import Registry
from finsent.settings import Settings

log = logging.getLogger(__name__)


def calibration_of(
    settings: Settings, model_dir: Path, name: str | None, field: str
) -> DomainCalibration | None:
    """Return a model's calibration of a name; None where no name is given.

    Raises:
        InputError: the model is not a published version, or has no calibration of that name.
    """
    if name is None:
        return None
    version = Registry(settings.registry_dir).version_at(model_dir)
    if version is None:
        raise InputError(
            f"{field}={name!r}: {str(model_dir)!r} is not a published version, and only those have "
            f"calibrations for domains. Publish the model, or leave {field} out."
        )
    return Calibrations(settings.registry_dir, version).get(name, field)


def warn_of_lost_calibrations(registry: Registry, alias: str | None, version: str) -> None:
    """Log which calibrations a version lacks that the one of its alias has, before it moves."""
    old = None if alias is None else registry.aliases().get(alias)
    if old is None:
        return
    there = [Calibrations(registry.root, one).names() for one in (old, version)]
    lost = sorted({*there[0]} - {*there[1]})
    if lost:
        log.warning(
            "%s: model version %s lacks calibrations that %s has: %s. A service that uses one by "
            "serve.calibrations refuses the version. Make each with `python -m ray_jobs.calibrate "
            "calibrate.model=version:%s calibrate.name=NAME calibrate.sources=...`.",
            alias,
            version,
            old,
            ", ".join(lost),
            version,
        )
