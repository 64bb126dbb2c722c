"""Calibrations for domains that jobs are told to use."""

from __future__ import annotations

from pathlib import Path

from finsent.errors import InputError
from finsent.modeling.domain import DomainCalibration
from finsent.registry.calibrations import Calibrations
from finsent.registry.registry import Registry
from finsent.settings import Settings


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
