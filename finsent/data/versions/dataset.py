"""A dataset version on disk: an immutable directory of Parquet splits and a manifest."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.versions.manifest import MANIFEST, Manifest
from finsent.errors import InputError
from finsent.files import sha256_file, write_text
from finsent.labels import LABELS
from finsent.references import PATH, VERSION, only_match, parse, path_spelling

log = logging.getLogger(__name__)

LATEST = ".latest"  # file next to the versions with the id of the version that was last used


@dataclass(frozen=True)
class DatasetVersion:
    """A published dataset version."""

    path: Path

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> DatasetVersion:
        """Open a version's directory.

        Raises:
            InputError: the version is incomplete, damaged, or has other labels.
        """
        version = cls(path)
        labels = version.manifest.labels
        if tuple(labels) != LABELS:
            raise InputError(
                f"{path / MANIFEST}: labels are {labels}, not {list(LABELS)}. Ingest again."
            )
        if verify:
            version.verify()
        return version

    @classmethod
    def at(cls, path: Path) -> DatasetVersion | None:
        """Open the version in a directory, or return None if there is none. Raises as `open`."""
        return cls.open(path) if (path / MANIFEST).is_file() else None

    @classmethod
    def find(cls, reference: str, datasets_dir: Path, field: str) -> DatasetVersion:
        """Open a version by id, by directory, or as `latest`: the version that was last used.

        Args:
            field: setting with the reference, for error messages.

        Raises:
            InputError: there is no such version, or the reference names two.
        """
        parsed = parse(reference, field, (VERSION, PATH))
        matches: dict[str, Path] = {}
        if parsed.may_be(VERSION):
            matches[f"{VERSION}:{parsed.name}"] = datasets_dir / parsed.name
        if parsed.may_be(PATH):
            matches[path_spelling(parsed.name)] = Path(parsed.name).expanduser().absolute()
        matches = {name: path for name, path in matches.items() if (path / MANIFEST).is_file()}
        if reference == "latest" and (last := _last_used(datasets_dir)):
            matches[f"{VERSION}:{last.name}"] = last
        match = only_match(reference, field, matches)
        if match is not None:
            return cls.open(match)
        if reference == "latest":
            raise InputError(
                f"{field}='latest': no dataset version in {str(datasets_dir)!r}. "
                "Run `python -m ray_jobs.ingest` first."
            )
        known = sorted(path.parent.name for path in datasets_dir.glob(f"[!.]*/{MANIFEST}"))
        raise InputError(
            f"{field}={reference!r}: no such dataset version. "
            f"Versions in {str(datasets_dir)!r}: {', '.join(known) or 'none'}."
        )

    @cached_property
    def manifest(self) -> Manifest:
        """The parsed manifest.

        Raises:
            InputError: the file is missing or not a manifest of this schema.
        """
        return Manifest.read(self.path / MANIFEST)

    @property
    def version(self) -> str:
        """The version's id."""
        return self.manifest.version

    def mark_latest(self) -> None:
        """Make `latest` refer to this version.

        If the folder of the versions is another user's, log a warning: the version can be used.
        """
        try:
            write_text(self.path.parent / LATEST, f"{self.path.name}\n")
        except OSError as error:
            log.warning(
                "`latest` does not become %s: cannot write to %s (%s)",
                self.path.name,
                self.path.parent,
                error.strerror,
            )

    def files(self, split: str) -> list[Path]:
        """The Parquet files of a split."""
        return [self.path / file.path for file in self.manifest.splits[split].files]

    def rows(self, split: str) -> int:
        """The number of rows of a split."""
        return self.manifest.splits[split].rows

    def read(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """Read a complete split as one table, in the order of the files."""
        return pa.concat_tables(
            pq.read_table(file, columns=columns, partitioning=None) for file in self.files(split)
        )

    def verify(self) -> None:
        """Compare every file with its digest.

        Raises:
            InputError: a file is missing or changed.
        """
        for listed in self.manifest.digests:
            file = self.path / listed.path
            if not file.is_file() or sha256_file(file) != listed.sha256:
                raise InputError(
                    f"{file}: missing or changed since it was published. Delete "
                    f"{str(self.path)!r} and ingest again."
                )


def _last_used(datasets_dir: Path) -> Path | None:
    """Return the directory of the version that was last created or used."""
    manifests = list(datasets_dir.glob(f"[!.]*/{MANIFEST}"))
    if not manifests:
        return None
    newest = max(manifests, key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    marked = datasets_dir / _read_mark(datasets_dir) / MANIFEST
    return (marked if marked in manifests else newest).parent


def _read_mark(datasets_dir: Path) -> str:
    """Return the version id in the file `LATEST`, or an empty string."""
    try:
        return (datasets_dir / LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        return ""
