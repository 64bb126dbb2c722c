"""Calibrations of model versions for domains.

`ROOT/calibrations/VERSION/NAME.json` holds the current calibration of a name,
`ROOT/calibrations/VERSION/previous/NAME-ID.json` its earlier calibrations. Versions do not change.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finsent.disk import translate_disk_errors
from finsent.errors import InputError
from finsent.files import directory_lock, make_dir, read_json, write_json
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.names import NAME_PATTERN

_FOLDER = "calibrations"
_PREVIOUS = "previous"


@dataclass(frozen=True)
class Calibrations:
    """The calibrations of one model version."""

    root: Path  # of the registry
    version: str

    @property
    def folder(self) -> Path:
        """The directory of the current calibrations."""
        return self.root / _FOLDER / self.version

    def path(self, name: str) -> Path:
        """Return the file of a name, whether it exists or not."""
        return self.folder / f"{name}.json"

    def names(self) -> list[str]:
        """Return the names of the calibrations, sorted."""
        files = self.folder.glob("*.json")
        return sorted(path.stem for path in files if re.fullmatch(NAME_PATTERN, path.stem))

    def get(self, name: str, field: str) -> DomainCalibration:
        """Read a calibration.

        Args:
            field: the setting that names it, for messages.

        Raises:
            InputError: there is no calibration of the name, or it is damaged.
        """
        if name not in self.names():
            known = ", ".join(self.names()) or "none"
            raise InputError(
                f"{field}={name!r}: model version {self.version} has no calibration of that name "
                f"(known: {known}). Fit one with `python -m ray_jobs.calibrate "
                f"calibrate.model=version:{self.version} calibrate.name={name} "
                "calibrate.sources=...`, or name another calibration."
            )
        return self._read(self.path(name))

    def _read(self, path: Path) -> DomainCalibration:
        remedy = "delete the file and calibrate again"
        try:
            calibration = DomainCalibration.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(map(str, first["loc"]))
            problem = f"{key}: {first['msg']}" if key else first["msg"]
            raise InputError(f"{path}: is damaged ({problem}); {remedy}") from None
        if (calibration.model_version, calibration.name) != (self.version, path.stem):
            raise InputError(
                f"{path}: is the calibration {calibration.name!r} of model version "
                f"{calibration.model_version}; {remedy}"
            )
        return calibration

    def publish(self, calibration: DomainCalibration) -> DomainCalibration:
        """Store a calibration under its name, atomically.

        The previous calibration moves to `previous/`. A calibration of the same content does not
        change.

        Returns:
            The stored calibration.

        Raises:
            InputError: the registry cannot be written, or the previous calibration is damaged.
        """
        make_dir(self.folder, "registry.root")
        path = self.path(calibration.name)
        with (
            directory_lock(self.folder, wait=True),
            translate_disk_errors(self.root, "registry.root"),
        ):
            old = self._read(path) if path.exists() else None
            if old is not None and old.id == calibration.id:
                return old
            if old is not None:
                archive = self.folder / _PREVIOUS / f"{old.name}-{old.id}.json"
                archive.parent.mkdir(exist_ok=True)
                _write(archive, old)
                previous = (*old.previous, old.id)
                calibration = calibration.replaced(previous=previous)
            _write(path, calibration)
        return calibration


def _write(path: Path, calibration: DomainCalibration) -> None:
    write_json(path, calibration.model_dump(mode="json"))
    with suppress(OSError):  # a file system without permissions
        path.chmod(path.stat().st_mode & 0o444)
