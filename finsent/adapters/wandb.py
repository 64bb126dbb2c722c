"""Weights & Biases: private settings, and options that its docs leave out.

Nothing else imports the package `wandb`, which takes 0.4 CPU seconds. The test
`tests/unit/test_adapter_wandb.py` fails with a clear message where an upgrade removes a setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from finsent.adapters.wandb_environment import Mode

INIT_SECONDS = 30
FINISH_SECONDS = 60
# No output, and nothing of this machine or its code is recorded. `x_` marks private settings.
SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "finish_timeout": FINISH_SECONDS,
    "finish_timeout_raises": False,
}


@dataclass(frozen=True)
class RunRequest:
    """The run to open, and its settings."""

    id: str
    name: str
    run_dir: Path
    mode: Mode
    project: str
    entity: str | None
    group: str | None
    tags: Sequence[str]
    config: Mapping[str, Any]


class Run:
    """A run of Weights & Biases."""

    def __init__(self, request: RunRequest) -> None:
        """Open the run, or continue the run with the same id."""
        self._run = wandb.init(
            project=request.project,
            entity=request.entity,
            group=request.group,
            tags=request.tags or None,
            id=request.id,
            name=request.name,
            resume="allow",
            reinit="create_new",  # the trials of a sweep run in one process
            dir=request.run_dir,
            config=dict(request.config),
            mode=request.mode,
            settings=wandb.Settings(**SETTINGS, init_timeout=INIT_SECONDS),
        )

    @property
    def step(self) -> int:
        """The newest step."""
        return int(self._run.step)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log values at a step. W&B drops values of a step before the newest."""
        self._run.log(dict(values), step=step)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Set values of the run's summary."""
        for key, value in values.items():
            self._run.summary[key] = value

    def log_model(self, folder: Path, aliases: Iterable[str], metadata: Mapping[str, Any]) -> None:
        """Log the files of a model version as an artifact.

        A model version is immutable: W&B uploads the files from where they are, now or by
        `wandb sync`, and makes no copy.
        """
        artifact = wandb.Artifact("finsent-model", "model", metadata=dict(metadata))
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            # `add_dir` would print.
            artifact.add_file(
                str(file), file.relative_to(folder).as_posix(), policy="immutable", skip_cache=True
            )
        self._run.log_artifact(artifact, aliases=[*aliases])

    def finish(self, *, exit_code: int) -> None:
        """Finish the run."""
        self._run.finish(exit_code=exit_code)


def image(file: Path) -> object:
    """Return a picture for `Run.log`; the run stores a copy."""
    return wandb.Image(str(file))


def page(html: str) -> object:
    """Return a page for `Run.log`, without W&B's own style."""
    return wandb.Html(html, inject=False, data_is_not_path=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> object:
    """Return a table for `Run.log`."""
    return wandb.Table(columns=[*columns], data=[[*row] for row in rows])
