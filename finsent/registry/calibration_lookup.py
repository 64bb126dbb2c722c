"""Look-up of calibrations for domains, and a warning of calibrations that a version lacks."""

from __future__ import annotations

import logging
from pathlib import Path

from finsent.errors import InputError
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.registry.calibrations import Calibrations
from finsent.registry.registry import Registry

log = logging.getLogger(__name__)


def find_calibration(
    registry: Registry, model_dir: Path, name: str | None, field: str
) -> DomainCalibration | None:
    """Return a model's calibration of a name; None: no name is given.

    Args:
        field: the setting that holds the name, for messages.

    Raises:
        InputError: the model is not a published version, or has no calibration of that name.
    """
    if name is None:
        return None
    version = registry.version_at(model_dir)
    if version is None:
        raise InputError(
            f"{field}={name!r}: {str(model_dir)!r} is not a published version. Only published "
            f"versions have calibrations for domains. Publish the model, or leave {field} out."
        )
    return Calibrations(registry.location, version).get(name, field)


def warn_of_lost_calibrations(registry: Registry, alias: str | None, version: str) -> None:
    """Warn of calibrations that a version lacks and the current version of its alias has.

    Call this before the alias moves.
    """
    current = None if alias is None else registry.aliases().get(alias)
    if current is None:
        return
    names_of_current, names = (
        Calibrations(registry.location, v).names() for v in (current, version)
    )
    lost = sorted({*names_of_current} - {*names})
    if lost:
        log.warning(
            "%s: model version %s lacks calibrations that %s has: %s. A service with one of them "
            "in serve.calibrations refuses the version. Fit each with "
            "`python -m ray_jobs.calibrate calibrate.model=version:%s calibrate.name=NAME "
            "calibrate.sources=...`.",
            alias,
            version,
            current,
            ", ".join(lost),
            version,
        )
