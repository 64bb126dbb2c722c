"""The directories where finsent stores datasets, runs, models and downloads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The directories below `storage.root`. All paths are absolute."""

    root: Path
    registry_dir: Path  # published model versions

    @classmethod
    def at(cls, root: str | Path, registry: str | Path | None = None) -> Workspace:
        """Return the workspace below a root.

        Args:
            root: inside a Ray job a relative path counts from ~/finsent, since Ray deletes the
                job's working directory at its end.
            registry: directory of the registry, by the same rule; None: ROOT/registry.
        """
        path = _resolve(root)
        return cls(path, _resolve(registry) if registry else path / "registry")

    @property
    def runs_dir(self) -> Path:
        """The directories of runs."""
        return self.root / "runs"

    @property
    def sources_dir(self) -> Path:
        """Files that hubs have delivered."""
        return self.root / "sources"

    @property
    def backbones_dir(self) -> Path:
        """Backbones that finsent has made or adapted."""
        return self.root / "backbones"

    def versions_dir(self, dataset: str) -> Path:
        """Return the directory of a dataset's versions."""
        return self.root / "datasets" / dataset


def _resolve(name: str | Path) -> Path:
    path = Path(name).expanduser()
    if not path.is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        path = Path.home() / "finsent" / path
    return path.absolute()
