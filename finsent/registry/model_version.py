"""A published model version, verified against its manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from finsent.errors import InputError
from finsent.files import sha256_file
from finsent.labels import LABELS
from finsent.registry.version_files import digest_of_files
from finsent.registry.version_manifest import MANIFEST, VersionFile, VersionManifest


@dataclass(frozen=True)
class ModelVersion:
    """A published model."""

    path: Path  # of its files; in a list of a bucket's versions, whose files are not here: the id
    uri: str = ""  # if the registry is in a bucket
    manifest_data: bytes | None = field(default=None, repr=False)  # None: is in the directory

    @property
    def version(self) -> str:
        """The version's id: a digest of its model files."""
        return self.path.name

    @property
    def created(self) -> str:
        """When the version was published, ISO 8601; empty when the manifest is damaged."""
        try:
            return self.manifest.created
        except InputError:
            return ""

    @cached_property
    def manifest(self) -> VersionManifest:
        """The parsed manifest.

        Raises:
            InputError: the manifest is missing or damaged.
        """
        if self.manifest_data is not None:
            return VersionManifest.decode(self.manifest_data, f"{self.uri}/{MANIFEST}")
        return VersionManifest.read(self.path / MANIFEST)

    def verify(self) -> ModelVersion:
        """Compare labels and digests of all files with the manifest, and the manifest with the id.

        Raises:
            InputError: a file is missing, changed or foreign. Such a version is never loaded.
        """
        location = self.uri or str(self.path)
        remedy = f"Use another version, or delete {location!r} and publish the model again."
        manifest = self.manifest
        if list(manifest.labels or ()) != list(LABELS):
            labels = None if manifest.labels is None else list(manifest.labels)
            raise InputError(
                f"model version {self.version}: labels are {labels}, not {list(LABELS)}. {remedy}"
            )
        if (problem := self._file_problem(manifest.files)) is not None:
            raise InputError(
                f"model version {self.version} in {location!r} is damaged: {problem}. {remedy}"
            )
        return self

    def _file_problem(self, listed: tuple[VersionFile, ...]) -> str | None:
        """Return how the files differ from the manifest's; None: they are the same."""
        if not listed:
            return "its manifest lists no files"
        files = {file.path: file for file in listed}
        stored = {str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file()}
        for name in sorted(files.keys() | stored - {MANIFEST}):
            if name not in stored:
                return f"{name} is missing"
            if name not in files:
                return f"{name} is not in the manifest"
            if sha256_file(self.path / name) != files[name].sha256:
                return f"{name} does not match its SHA-256"
        if digest_of_files(listed) != self.version:
            return "its manifest describes other files"
        return None
