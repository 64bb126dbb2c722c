"""Published model versions: immutable directories, and aliases that move between them.

`ROOT/versions/ID/` holds a model in Hugging Face layout with a model card and `manifest.json`.
`ROOT/aliases/NAME.json` names the version that an alias stands for, and the ones before it.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.files import (
    digest,
    link_or_copy,
    make_dir,
    read_json,
    sha256_file,
    staged_dir,
    write_json,
)
from finsent.inference.export_record import EXPORT_FOLDERS, read_exports
from finsent.labels import LABELS
from finsent.modeling.model_dir import EXPORTS, PROVENANCE, check_model_dir
from finsent.names import VERSION_ID
from finsent.references import ALIAS, VERSION, Reference, only_match, parse
from finsent.registry.aliases import Aliases, check_alias
from finsent.registry.card import model_card
from finsent.registry.elsewhere import elsewhere
from finsent.registry.gate import Clearance, Gate

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CARD = "README.md"
SCHEMA_VERSION = 1
_SUFFIXES = (".json", ".safetensors", ".txt", ".model")  # no pickle ever enters
_MIN_SHARED_BYTES = 1 << 20  # smaller files are copied: sharing saves nothing, and people edit them


@dataclass(frozen=True)
class ModelVersion:
    """A published model."""

    path: Path

    @property
    def version(self) -> str:
        """The version's id: a digest of its model files."""
        return self.path.name

    @property
    def created(self) -> str:
        """When it was published, ISO 8601; empty when the manifest is damaged."""
        try:
            return str(self.manifest["created"])
        except (InputError, KeyError):
            return ""

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The parsed manifest."""
        manifest = read_json(self.path / MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
            raise InputError(
                f"{self.path / MANIFEST}: not a manifest of schema {SCHEMA_VERSION}; publish again"
            )
        return manifest

    def verify(self) -> ModelVersion:
        """Compare labels and every file's digest with the manifest, and the manifest with the id.

        Raises:
            InputError: a file is missing, changed or foreign. Such a version is never loaded.
        """
        remedy = f"use another version, or delete {str(self.path)!r} and publish the model again"
        damaged = f"model version {self.version} in {str(self.path)!r} is damaged"
        manifest = self.manifest
        if not isinstance(manifest.get("files"), list) or not manifest["files"]:
            raise InputError(f"{damaged}: its manifest lists no files; {remedy}")
        if manifest.get("labels") != list(LABELS):
            raise InputError(
                f"model version {self.version}: labels are {manifest.get('labels')}, not "
                f"{list(LABELS)}; {remedy}"
            )
        files = {entry["path"]: entry for entry in manifest["files"]}
        found = {str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file()}
        for name in sorted(files.keys() | found - {MANIFEST}):
            if name not in files or name not in found:
                problem = "is not in the manifest" if name in found else "is missing"
            elif sha256_file(self.path / name) != files[name]["sha256"]:
                problem = "does not match its SHA-256"
            else:
                continue
            raise InputError(f"{damaged}: {name} {problem}; {remedy}")
        if _version_id(manifest["files"]) != self.version:
            raise InputError(f"{damaged}: its manifest describes other files; {remedy}")
        return self


class Registry:
    """A registry under a root directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._aliases = Aliases(root / "aliases")

    def check_writable(self) -> None:
        """Fail early, before anything is trained.

        Raises:
            InputError: the root cannot be created or written.
        """
        make_dir(self.root / "versions", "registry.root")
        self._aliases.check_writable()

    # --- versions ---

    def versions(self) -> list[ModelVersion]:
        """All versions, oldest first."""
        manifests = self.root.glob(f"versions/[!.]*/{MANIFEST}")
        found = [ModelVersion(m.parent) for m in manifests if VERSION_ID.fullmatch(m.parent.name)]
        return sorted(found, key=lambda v: (v.created, v.version))

    def version_id(self, model_dir: Path) -> str:
        """The id that a model's directory has, or would get, as a version.

        Raises:
            InputError: the directory is incomplete.
        """
        check_model_dir(model_dir)
        return _version_id([_entry(path, model_dir) for path in _model_files(model_dir)])

    def publish(
        self,
        model_dir: Path,
        metrics: dict[str, Any],
        code: dict[str, Any],
        gate: Gate | None = None,
        *,
        license: str | None = None,
        share: bool = False,
    ) -> ModelVersion:
        """Copy a trained, evaluated model into the registry. The same model gets the same id.

        A version's files are read-only. Where the version exists already, it stays as it is, with
        the gate and the license of its first publishing.

        Args:
            model_dir: written by `finsent.modeling.classifier.save_classifier`.
            metrics: of the test split.
            code: commit and package versions.
            gate: what the version passed to become champion; None: nothing was compared.
            license: of the model, for its card; None: not stated, or its origin's.
            share: hard-link large files instead of copying them, where the file system can. Only
                for a directory whose writers replace files and never write them in place.

        Raises:
            InputError: the model's directory is incomplete or the root is not writable.
        """
        self.check_writable()
        check_model_dir(model_dir)
        entries = [_entry(path, model_dir) for path in _model_files(model_dir)]
        version = ModelVersion(self.version_dir(_version_id(entries)))
        if version.path.exists():  # first: another publisher's appears whole, at any moment
            return _existing(version, license)
        provenance = read_json(model_dir / PROVENANCE)
        with staged_dir(version.path) as staging:
            _copy(entries, model_dir, staging, share=share)
            card = staging / CARD
            text = model_card(
                version.version,
                provenance,
                metrics,
                entries,
                code,
                license,
                elsewhere(model_dir),
                gate,
            )
            card.write_text(text, encoding="utf-8")
            manifest = {
                "schema_version": SCHEMA_VERSION,
                "version": version.version,
                "created": datetime.now(UTC).isoformat(timespec="microseconds"),
                "labels": list(LABELS),
                "files": [*entries, _entry(card, staging)],
                "metrics": metrics,
                "gate": gate.as_json() if gate else None,
                "license": license,
                "exports": _exports(model_dir),
                "backbone": provenance.get("backbone"),
                "origin": provenance.get("origin"),  # of a model that was adopted, else null
                "dataset": provenance.get("dataset"),
                "config": provenance.get("config"),
                "code": code,
            }
            write_json(staging / MANIFEST, manifest)
            _protect(staging, card.stat().st_mode)
        return version.verify()

    def get(self, reference: str, field: str | None = None) -> ModelVersion:
        """Return the verified version of an id or an alias.

        Args:
            field: the setting that holds the reference, for messages; None: no setting does.

        Raises:
            InputError: there is none, it is damaged, or the reference names two.
        """
        version = self.resolve(reference, field)
        if version is None or not self.is_published(version):
            known = [*self.aliases(), *(v.version for v in self.versions())]
            named = f"{field}={reference!r}" if field else f"model {reference!r}"
            raise InputError(
                f"{named}: no such alias or version in {str(self.root)!r}; "
                f"known: {', '.join(known) or 'none, publish one first'}"
            )
        return ModelVersion(self.version_dir(version)).verify()

    def resolve(self, reference: str, field: str | None = None) -> str | None:
        """Return the version's id that `alias:NAME`, `version:ID` or a bare name names now.

        Args:
            field: the setting that holds the reference, for messages; None: no setting does.

        Returns:
            None: the registry has no such alias or version.

        Raises:
            InputError: the reference names two versions, or another kind of thing.
        """
        field = field or "model"
        versions = self.matches(parse(reference, field, (ALIAS, VERSION)))
        only_match(reference, field, {k: self.version_dir(v) for k, v in versions.items()})
        return next(iter(versions.values()), None)

    def matches(self, reference: Reference) -> dict[str, str]:
        """Return the versions' ids that a reference may name, by their plain spelling."""
        name = reference.name
        found: dict[str, str] = {}
        if reference.may_be(ALIAS) and name in (aliases := self.aliases()):
            found[f"{ALIAS}:{name}"] = aliases[name]
        is_id = VERSION_ID.fullmatch(name) is not None
        if reference.may_be(VERSION) and is_id and self.is_published(name):
            found[f"{VERSION}:{name}"] = name
        return found

    def version_dir(self, version: str) -> Path:
        """Return the directory that a version with this id has, or would have."""
        return self.root / "versions" / version

    def is_published(self, version: str) -> bool:
        """Return whether there is a version with this id, damaged or not."""
        return (self.version_dir(version) / MANIFEST).is_file()

    def version_at(self, path: Path) -> str | None:
        """Return the id of the version whose directory a path is, also by links; None: of none."""
        versions = (self.root / "versions").resolve()
        for place in (path.absolute(), path.resolve()):
            if place.parent.resolve() == versions and VERSION_ID.fullmatch(place.name):
                return place.name
        return None

    # --- aliases ---

    def aliases(self) -> dict[str, str]:
        """Return the version id by alias."""
        return self._aliases.versions()

    def gates(self, version: str) -> dict[str, dict[str, Any] | None]:
        """Return the record of the gate by alias of a version; None: nothing was compared.

        A version's manifest has the record of its first publishing, which never changes. It may
        have been promoted since.
        """
        targets = {alias: self._aliases.get(alias) for alias in self.aliases()}
        return {alias: one.gate for alias, one in targets.items() if one.version == version}

    def gate_of(self, reference: str, version: ModelVersion) -> dict[str, Any] | None:
        """Return the record of the gate that a version passed.

        Args:
            reference: where it is an alias, the record is of the step that pointed it at `version`;
                else of the version's first publishing.

        Returns:
            None where nothing was compared; records of earlier releases have other keys.
        """
        parsed = parse(reference, "model", (ALIAS, VERSION))
        if parsed.may_be(ALIAS):
            target = self._aliases.get(parsed.name)
            if target.version == version.version:
                return target.gate
        gate = version.manifest.get("gate")
        return gate if isinstance(gate, dict) else None

    def promote(
        self, reference: str, alias: str, clearance: Clearance | None = None
    ) -> ModelVersion:
        """Point an alias at a version, in one atomic step; readers see the old or the new one.

        Args:
            clearance: of the gate, which is stored with the alias; None: the alias has no gate.

        Raises:
            InputError: the version is missing or damaged, the alias is no valid name, or it has
                moved since the clearance was given.
        """
        check_alias(alias)
        version = self.get(reference)
        self.check_writable()
        self._aliases.move(alias, version.version, clearance)
        return version

    def rollback(self, alias: str) -> ModelVersion:
        """Point an alias back at the version before.

        Raises:
            InputError: the alias is unknown or has no earlier version.
        """
        with self._aliases.moving_back(alias) as before:
            return self.get(before)


def _existing(version: ModelVersion, license: str | None) -> ModelVersion:
    """Verify a version that is to be published again.

    Raises:
        InputError: it is incomplete or damaged.
    """
    if not (version.path / MANIFEST).is_file():
        raise InputError(
            f"{str(version.path)!r}: is incomplete (no {MANIFEST}); delete it and publish again"
        )
    version.verify()
    if license is not None and version.manifest.get("license") != license:
        log.warning(
            "publish.license=%r: is not applied, as the version %s exists already and never "
            "changes. Delete %r and publish again for another license.",
            license,
            version.version,
            str(version.path),
        )
    return version


def _copy(entries: list[dict[str, Any]], model_dir: Path, target_dir: Path, *, share: bool) -> None:
    """Copy a model's files, or hard-link the large ones."""
    for entry in entries:
        source, target = model_dir / entry["path"], target_dir / entry["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if share and entry["bytes"] >= _MIN_SHARED_BYTES:
            link_or_copy(source, target)
        else:
            shutil.copyfile(source, target)


def _protect(folder: Path, mode: int) -> None:
    """Make a version's files read-only.

    Args:
        mode: permissions of a new file; a linked one may have others.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(OSError):  # a file system without permissions
                path.chmod(mode & 0o444)


def _exports(model_dir: Path) -> list[dict[str, Any]]:
    """What the model was exported to, and the numbers of the parity gate; also of those refused."""
    path = model_dir / EXPORTS
    return list(read_json(path)["exports"]) if path.is_file() else []


def _model_files(model_dir: Path) -> list[Path]:
    """Return the files of a model: its own ones, and the exports that its record names.

    Of a published version, manifest and card are left out: publishing writes them anew.
    """
    exported = {path for one in read_exports(model_dir) for path in one.files(model_dir)}
    folders = {path.parent for path in exported} | {model_dir / name for name in EXPORT_FOLDERS}
    own = (p for p in model_dir.rglob("*") if p.is_file() and p.suffix in _SUFFIXES)
    added = {model_dir / name for name in (MANIFEST, CARD)}
    return sorted({*exported, *(p for p in own if p.parent not in folders)} - added)


def _entry(path: Path, root: Path) -> dict[str, Any]:
    name = path.relative_to(root).as_posix()
    return {"path": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _version_id(entries: list[dict[str, Any]]) -> str:
    """Return a digest of the model's files; the card, which names the id, is left out."""
    return digest(sorted([e["path"], e["sha256"]] for e in entries if e["path"] != CARD))[:12]
