"""The directories where finsent stores datasets, runs, models and downloads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from finsent.files import digest
from finsent.storage import Location, StorageConfig


@dataclass(frozen=True)
class Workspace:
    """The places below `storage.root`, and the directories of this machine."""

    root: Location
    registry: Location  # published model versions

    @classmethod
    def at(
        cls,
        root: str | Path,
        registry: str | Path | None = None,
        config: StorageConfig | None = None,
    ) -> Workspace:
        """Return the workspace below a root.

        Args:
            root: path or URI. Inside a Ray job a relative path is relative to ~/finsent, because
                Ray deletes the job's working directory at its end.
            registry: path or URI of the registry, by the same rule; None: ROOT/registry.
            config: cache and retries of object stores; None: the defaults.
        """
        location = Location.at(root, "storage.root", config)
        if registry:
            return cls(location, Location.at(registry, "registry.root", config))
        return cls(location, replace(location / "registry", field="registry.root", configured=None))

    @property
    def local_dir(self) -> Path:
        """The directory of files that this machine can make again: ROOT, or the cache's."""
        return self.root.path if self.root.is_local else self.root.cache.folder

    @property
    def runs_dir(self) -> Path:
        """The directories of runs: ROOT/runs, or their copies in the cache, one folder per root."""
        if self.root.is_local:
            return self.root.path / "runs"
        return self.root.cache.folder / "runs" / digest(self.root.address)[:16]

    @property
    def sources_dir(self) -> Path:
        """Files that hubs have delivered."""
        return self.local_dir / "sources"

    @property
    def backbones_dir(self) -> Path:
        """Backbones that finsent has made or adapted."""
        return self.local_dir / "backbones"

    def versions(self, dataset: str) -> Location:
        """Return the place of a dataset's versions."""
        return self.root / "datasets" / dataset
