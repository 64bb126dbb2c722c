"""A run's directory: what was asked, with which code, and what came out."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from finsent.config import Section
from finsent.errors import ConfigError, InputError
from finsent.files import make_dir, read_json, write_json
from finsent.references import LATEST, PATH, RUN, Reference, only_match, parse, path_spelling
from finsent.training.config import OPERATIONAL
from tune.storage import masked_url

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
RESULT = "result.json"
TRAINED = "trained.json"  # of a finished training whose checkpoints were removed
_PACKAGES = (
    "finsent",
    "ray",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "pyarrow",
    "numpy",
    "scikit-learn",
    "pydantic",
    "omegaconf",
)
# Sections that decide what a training run makes; only under the same ones may it go on.
_RECIPE = ("data", "model", "train")


def code_identity() -> dict[str, Any]:
    """The git commit of the running code, if there is one, and the versions of its packages."""
    source = Path(__file__).resolve().parent
    commit = _git(source, "rev-parse", "HEAD")
    changed = _git(source, "status", "--porcelain", "--untracked-files=no") if commit else None
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree that is not installed
            versions[name] = None
    return {"git_commit": commit, "git_dirty": bool(changed), "packages": versions}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def recorded_settings(settings: Section) -> dict[str, Any]:
    """Return settings as records of a run have them: JSON-able, without a storage's password.

    Others may read a run's directory, and it is copied and attached to reports.
    """
    values = settings.model_dump(mode="json")
    sweep = values.get("sweep") or {}
    if sweep.get("storage"):
        sweep["storage"] = masked_url(sweep["storage"])
    return values


def start_run(run_dir: Path, job: str, settings: Section) -> None:
    """Create the run's directory and write what was asked, before any work.

    Raises:
        ConfigError: the directory holds another job's run, or one of another recipe.
        InputError: it cannot be written.
    """
    make_dir(run_dir, "storage.root")
    config = recorded_settings(settings)
    if (run_dir / CONFIG).is_file():
        _check_same(run_dir, job, config)
    write_json(run_dir / CONFIG, {"job": job, **config})
    write_json(run_dir / ENVIRONMENT, code_identity())
    (run_dir / RESULT).unlink(missing_ok=True)


def _check_same(run_dir: Path, job: str, config: dict[str, Any]) -> None:
    before = read_json(run_dir / CONFIG)
    if not isinstance(before, dict):
        raise InputError(f"{run_dir / CONFIG}: not a run's config; choose another run.name")
    name = run_dir.name
    if before.get("job") != job:
        raise ConfigError(
            f"run.name={name!r}: is a run of the job {before.get('job')!r}, not {job!r}; "
            "choose another name"
        )
    if job not in ("train", "pipeline") or not has_trained(run_dir):
        return
    old, new = _flat(before), _flat(config)
    free = {f"train.{name}" for name in OPERATIONAL}
    changed = [
        k for k in new if k.split(".")[0] in _RECIPE and k not in free and old.get(k) != new[k]
    ]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"run.name={name!r}: exists with {key}={old.get(key)!r}, now {key}={new[key]!r}; a run "
            "goes on only under its own settings: choose another name, or restore them"
        )


def has_trained(run_dir: Path) -> bool:
    """Return whether a run has checkpoints, or the record that replaces them."""
    return any(run_dir.glob("checkpoint_*")) or (run_dir / TRAINED).is_file()


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def finish_run(run_dir: Path, result: dict[str, Any]) -> None:
    """Write the result; its presence says that the run's work is complete.

    Its key `refused` is why the run's model was not published; without the key it was not refused.
    """
    write_json(run_dir / RESULT, result)


def find_model(reference: str, runs_dir: Path, field: str) -> Path:
    """Return the model's directory of a run, by name (`NAME` or `run:NAME`), by directory, or as
    `latest`, the training run that finished last.

    Raises:
        InputError: there is none, or the reference names two.
    """
    matches = model_matches(parse(reference, field, (RUN, PATH)), runs_dir)
    found = only_match(reference, field, matches)
    if found is None:
        raise InputError(not_a_model(reference, runs_dir, field))
    return found


def model_matches(reference: Reference, runs_dir: Path) -> dict[str, Path]:
    """Return the models' directories that a reference may name, by their plain spelling."""
    matches: dict[str, Path] = {}
    is_bare = reference.kind is None and "/" not in reference.name
    if reference.may_be(RUN) and (model := _model_in(runs_dir / reference.name)):
        run = runs_dir / reference.name
        matches[f"run:{reference.name}" if "/" not in reference.name else str(run)] = model
    if reference.may_be(PATH):
        path = Path(reference.name).expanduser().absolute()
        if model := _model_in(path):
            matches[path_spelling(reference.name)] = model
    if is_bare and reference.name == LATEST and (model := _last_trained(runs_dir)):
        matches[f"run:{model.parent.name}"] = model
    return matches


def not_a_model(reference: str, runs_dir: Path, field: str) -> str:
    """Return what is wrong with a reference that names no run and no model's directory."""
    if reference == LATEST:
        return (
            f"{field}='latest': no trained model in {str(runs_dir)!r}; "
            "run `python -m ray_jobs.train` first"
        )
    return f"{field}={reference!r}: neither a run in {str(runs_dir)!r} nor a model's directory"


def _model_in(folder: Path) -> Path | None:
    """Return a run's or a model's directory as the model's; None: neither."""
    folders = (folder, folder / "model")
    return next((path for path in folders if (path / "provenance.json").is_file()), None)


def _last_trained(runs_dir: Path) -> Path | None:
    # Of finished runs; result.json is written last.
    results = [
        result
        for result in runs_dir.glob(f"*/{RESULT}")
        if (result.parent / "model/provenance.json").is_file() and not _is_adopted(result.parent)
    ]
    if not results:
        return None
    last = max(results, key=lambda result: (result.stat().st_mtime_ns, str(result)))
    return last.parent / "model"


def _is_adopted(run_dir: Path) -> bool:
    """Whether a run's model was trained elsewhere."""
    try:
        provenance = read_json(run_dir / "model/provenance.json")
    except InputError:
        return False  # damaged: its use says so
    return isinstance(provenance, dict) and bool(provenance.get("origin"))
