"""Calibrations of model versions for domains.

`ROOT/calibrations/VERSION/NAME.json` holds the current calibration of a name,
`ROOT/calibrations/VERSION/previous/NAME-ID.json` its earlier calibrations. Versions do not change.
"""

from __future__ import annotations

import json
import random
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finsent.errors import InputError
from finsent.files import indented_json
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.names import NAME_PATTERN
from finsent.storage import Location, StoredObject, as_location

_FOLDER = "calibrations"
_PREVIOUS = "previous"
_MAX_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Calibrations:
    """The calibrations of one model version."""

    root: Location | Path  # of the registry
    version: str

    @property
    def location(self) -> Location:
        """The location of the current calibrations."""
        return as_location(self.root, "registry.root") / _FOLDER / self.version

    @property
    def folder(self) -> Path:
        """The directory of the current calibrations in a local registry."""
        return self.location.path

    def path(self, name: str) -> Path:
        """Return the file of a name in a local registry, whether it exists or not."""
        return self.folder / f"{name}.json"

    def locate(self, name: str) -> str:
        """Return path or URI of a name, whether it exists or not."""
        return self.location.store.locate(f"{name}.json")

    def names(self) -> list[str]:
        """Return the names of the calibrations, sorted."""
        keys = [info.key for info in self.location.store.list_objects("")]
        names = [key.removesuffix(".json") for key in keys if key.endswith(".json")]
        return sorted(name for name in names if re.fullmatch(NAME_PATTERN, name))

    def get(self, name: str, field: str) -> DomainCalibration:
        """Read a calibration.

        Args:
            field: the setting that names it, for messages.

        Raises:
            InputError: there is no calibration of the name, or it is damaged.
        """
        stored = None
        if re.fullmatch(NAME_PATTERN, name):
            stored = self.location.store.read(f"{name}.json")
        if stored is None:
            known = ", ".join(self.names()) or "none"
            raise InputError(
                f"{field}={name!r}: model version {self.version} has no calibration of that name "
                f"(known: {known}). Fit one with `python -m ray_jobs.calibrate "
                f"calibrate.model=version:{self.version} calibrate.name={name} "
                "calibrate.sources=...`, or name another calibration."
            )
        return self._parse(name, stored)

    def _parse(self, name: str, stored: StoredObject) -> DomainCalibration:
        location, remedy = self.locate(name), "Delete the file and calibrate again."
        try:
            calibration = DomainCalibration.model_validate(json.loads(stored.data))
        except ValidationError as error:
            first_problem = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(map(str, first_problem["loc"]))
            problem = f"{key}: {first_problem['msg']}" if key else first_problem["msg"]
            raise InputError(f"{location}: is damaged ({problem}). {remedy}") from None
        except ValueError as error:
            raise InputError(
                f"{location}: is damaged (not valid JSON: {error}). {remedy}"
            ) from None
        if (calibration.model_version, calibration.name) != (self.version, name):
            raise InputError(
                f"{location}: is the calibration {calibration.name!r} of model version "
                f"{calibration.model_version}. {remedy}"
            )
        return calibration

    def publish(self, calibration: DomainCalibration) -> DomainCalibration:
        """Store a calibration under its name, by compare-and-swap.

        The previous calibration is copied to `previous/`. A calibration of the same content does
        not change.

        Returns:
            The stored calibration.

        Raises:
            InputError: the registry cannot be written, or the previous calibration is damaged.
        """
        location, name = self.location, calibration.name
        location.check_writable()
        deadline = time.monotonic() + location.config.retry_seconds
        while time.monotonic() < deadline:
            stored = location.store.read(f"{name}.json")
            old = None if stored is None else self._parse(name, stored)
            if old is not None and old.id == calibration.id:
                return old
            new = calibration
            if stored is not None and old is not None:
                archive = f"{_PREVIOUS}/{name}-{old.id}.json"
                location.store.put(archive, stored.data)
                self._protect(archive)
                new = calibration.replaced(previous=(*old.previous, old.id))
            if self._write(new, stored):
                return new
            time.sleep(random.uniform(0, _MAX_WAIT_SECONDS))
        raise InputError(
            f"{self.locate(name)}: other processes kept changing the calibration. Run again."
        )

    def _write(self, calibration: DomainCalibration, old: StoredObject | None) -> bool:
        """Replace the stored calibration; return whether no other process was first."""
        key = f"{calibration.name}.json"
        data = indented_json(calibration.model_dump(mode="json")).encode()
        store = self.location.store
        etag = (
            store.put_if_absent(key, data)
            if old is None
            else store.put_if_match(key, data, old.etag)
        )
        if etag is not None:
            self._protect(key)
        return etag is not None

    def _protect(self, key: str) -> None:
        """Make a file of a local registry read-only."""
        if self.location.is_local:
            path = self.folder / key
            with suppress(OSError):  # a file system without permissions
                path.chmod(path.stat().st_mode & 0o444)
