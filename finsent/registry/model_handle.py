"""A model on disk, found by run, alias, version or directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finsent.errors import InputError
from finsent.references import (
    ALIAS,
    LATEST,
    PATH,
    RUN,
    VERSION,
    Reference,
    only_match,
    parse,
    path_spelling,
)
from finsent.registry.registry import Registry
from finsent.runs import MODEL_DIR, RESULT, has_trained_model
from finsent.stored_runs import StoredRuns
from finsent.workspace import Workspace


@dataclass(frozen=True)
class Model:
    """A model on disk."""

    folder: Path
    version: str | None  # id in the registry; None: not published

    @classmethod
    def find(cls, reference: str, workspace: Workspace, field: str) -> Model:
        """Find a run's model, a published version (verified), or a model's directory.

        Args:
            reference: `run:NAME`, `alias:NAME`, `version:ID`, `latest`, a directory, or a bare name
                that is one of these.
            field: the setting that holds the reference, for messages.

        Raises:
            InputError: there is no such model, it is damaged, or the reference names two.
        """
        registry = Registry(workspace.registry)
        parsed = parse(reference, field, (RUN, ALIAS, VERSION, PATH))
        published = registry.matches(parsed)
        folders = {name: registry.version_dir(version) for name, version in published.items()}
        folder = only_match(reference, field, {**folders, **_unpublished(parsed, workspace)})
        if folder is None:
            versions = {version.version for version in registry.versions()}
            names = ", ".join(sorted(versions | {*registry.aliases()}))
            problem = _not_found(reference, workspace, field)
            if parsed.kind in (ALIAS, VERSION):
                problem = f"{field}={reference!r}: no such {parsed.kind} in the registry"
            raise InputError(
                f"{problem}. Published in {str(registry.location)!r}: {names or 'none'}."
            )
        version = registry.version_at(folder)  # a path may be the directory of a version
        if version is not None:
            folder = registry.get(f"{VERSION}:{version}", field).path
        return cls(folder, version)

    @classmethod
    def find_unpublished(cls, reference: str, workspace: Workspace, field: str) -> Model:
        """Find a run's model or a model's directory.

        Args:
            reference: `run:NAME`, `latest`, a directory, or a bare name that is one of these.
            field: the setting that holds the reference, for messages.

        Raises:
            InputError: there is no such model, or the reference names two.
        """
        folders = _unpublished(parse(reference, field, (RUN, PATH)), workspace)
        folder = only_match(reference, field, folders)
        if folder is None:
            raise InputError(_not_found(reference, workspace, field))
        return cls(folder, Registry(workspace.registry).version_at(folder))


def _unpublished(reference: Reference, workspace: Workspace) -> dict[str, Path]:
    """Return the models' directories that a reference may name, by unambiguous spelling."""
    folders: dict[str, Path] = {}
    is_bare, stored_runs = "/" not in reference.name, StoredRuns.of(workspace)
    if reference.may_be(RUN):
        run_dir = stored_runs.fetch(reference.name)
        if model := _model_in(run_dir):
            folders[f"run:{reference.name}" if is_bare else str(run_dir)] = model
    if reference.may_be(PATH) and (
        model := _model_in(Path(reference.name).expanduser().absolute())
    ):
        folders[path_spelling(reference.name)] = model
    is_latest = reference.kind is None and reference.name == LATEST
    if is_latest and (model := _last_trained(stored_runs)):
        folders[f"run:{model.parent.name}"] = model
    return folders


def _not_found(reference: str, workspace: Workspace, field: str) -> str:
    runs_dir = str(workspace.root / "runs")
    if reference == LATEST:
        return (
            f"{field}='latest': no trained model in {runs_dir!r}; "
            "run `python -m ray_jobs.train` first"
        )
    return f"{field}={reference!r}: neither a run in {runs_dir!r} nor a model's directory"


def _model_in(folder: Path) -> Path | None:
    """Return the model's directory of a run's or a model's directory; None: neither."""
    folders = (folder, folder / MODEL_DIR)
    return next((path for path in folders if (path / "provenance.json").is_file()), None)


def _last_trained(stored_runs: StoredRuns) -> Path | None:
    """Return the model of the last finished training run; a run's result is written last."""
    if not stored_runs.location.is_local:
        run_dir = stored_runs.fetch_last_trained()
        return run_dir and _model_in(run_dir)
    results = [
        result
        for result in stored_runs.runs_dir.glob(f"*/{RESULT}")
        if has_trained_model(result.parent)
    ]
    if not results:
        return None
    last = max(results, key=lambda result: (result.stat().st_mtime_ns, str(result)))
    return last.parent / MODEL_DIR
