"""A model on disk, found by run, alias, version or directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finsent.errors import InputError
from finsent.records import ForeignRecord, JsonObject
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
from finsent.runs import RESULT
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
    is_bare, has_runs = "/" not in reference.name, workspace.root.is_local
    if reference.may_be(RUN) and has_runs:
        run_dir = workspace.runs_dir / reference.name
        if model := _model_in(run_dir):
            folders[f"run:{reference.name}" if is_bare else str(run_dir)] = model
    if reference.may_be(PATH) and (
        model := _model_in(Path(reference.name).expanduser().absolute())
    ):
        folders[path_spelling(reference.name)] = model
    is_latest = reference.kind is None and reference.name == LATEST
    if is_latest and has_runs and (model := _last_trained(workspace.runs_dir)):
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
    folders = (folder, folder / "model")
    return next((path for path in folders if (path / "provenance.json").is_file()), None)


def _last_trained(runs_dir: Path) -> Path | None:
    """Return the model of the last finished run; a run's result is written last."""
    results = [
        result
        for result in runs_dir.glob(f"*/{RESULT}")
        if (result.parent / "model/provenance.json").is_file() and not _is_adopted(result.parent)
    ]
    if not results:
        return None
    last = max(results, key=lambda result: (result.stat().st_mtime_ns, str(result)))
    return last.parent / "model"


class _RecordedOrigin(ForeignRecord):
    origin: JsonObject | None = None


def _is_adopted(run_dir: Path) -> bool:
    """Return whether a run's model was adopted."""
    try:
        return _RecordedOrigin.read(run_dir / "model/provenance.json").origin is not None
    except InputError:
        return False  # damaged: an error when the model is used
