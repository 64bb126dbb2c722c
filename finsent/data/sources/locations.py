"""Locations of single files: local paths, files of this package, and URIs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from pyarrow import fs

from finsent.data.sources.file_systems import filesystem_of
from finsent.errors import InputError
from finsent.uris import Uri, parse

_PACKAGED = "package"  # scheme of files of this package


@dataclass(frozen=True)
class Location:
    """The location of one file, which can cross processes: a reader opens the file itself."""

    uri: str  # an absolute local path, or a URI
    size: int  # bytes
    mtime_ns: int | None  # None: the time does not show a change
    field: str = "data.sources"  # the setting that names it

    @property
    def redacted(self) -> str:
        """Return the URI without credentials and options, for messages and manifests."""
        uri = parse(self.uri)
        return self.uri if uri is None else uri.redacted

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.parts[-1]

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the parts of the path, after the bucket of an object store."""
        uri = parse(self.uri)
        return PurePosixPath(self.uri if uri is None else uri.host + uri.path).parts

    def open(self) -> BinaryIO:
        """Open the file's bytes, from their start.

        Raises:
            OSError: the file is gone or may not be read.
        """
        uri = parse(self.uri)
        if uri is None or uri.scheme == _PACKAGED:
            return _local(self.uri, uri).open("rb")
        filesystem, prefix = filesystem_of(uri, self.field)
        return cast(BinaryIO, filesystem.open_input_file(prefix + uri.path))

    def check_unchanged(self) -> None:
        """Refuse a file that has changed since it was found.

        Raises:
            InputError: its size or time has changed.
            OSError: the file is gone.
        """
        uri = parse(self.uri)
        if uri is None or uri.scheme == _PACKAGED:
            stat = _local(self.uri, uri).stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
        else:
            filesystem, prefix = filesystem_of(uri, self.field)
            info = filesystem.get_file_info(prefix + uri.path)
            if info.type != fs.FileType.File:
                raise FileNotFoundError(2, "No such file", self.redacted)
            size, mtime_ns = info.size, info.mtime_ns
        if size != self.size or (self.mtime_ns is not None and mtime_ns != self.mtime_ns):
            raise InputError(
                f"{self.field}: {self.redacted!r} has changed since it was found. Run again when "
                "it is complete."
            )


def packaged(path: str, field: str) -> Location:
    """Return a file of this package, wherever the package is installed on the reading machine.

    Its time is that of the installation, so it does not show a change.

    Args:
        path: within the package.
        field: the setting, for messages.
    """
    uri = f"{_PACKAGED}://finsent/{path}"
    return Location(uri, _local(uri, parse(uri)).stat().st_size, None, field)


def _local(path: str, uri: Uri | None) -> Path:
    return Path(path if uri is None else str(resources.files(uri.host)) + uri.path)


def short_names(locations: list[Location]) -> list[str]:
    """Return the ends of paths, as short as the names stay distinct."""
    for depth in range(1, max((len(location.parts) for location in locations), default=0) + 1):
        names = ["/".join(location.parts[-depth:]) for location in locations]
        if len(set(names)) == len(names):
            return names
    return [location.redacted for location in locations]
