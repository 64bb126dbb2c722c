"""Published model versions: immutable directories, and aliases that move between them.

The root is a directory, or in a bucket. Files of a bucket's versions are read from verified copies
in the local cache.

`ROOT/versions/ID/` holds a model in Hugging Face layout with a model card and `manifest.json`.
`ROOT/aliases/NAME.json` names the alias's version and its earlier versions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from finsent.errors import InputError
from finsent.inference.export_record import Export, ExportsRecord
from finsent.labels import LABELS
from finsent.metrics_record import StoredMetrics
from finsent.modeling.model_dir import EXPORTS, check_model_dir
from finsent.modeling.provenance import Provenance, read_provenance
from finsent.names import VERSION_ID
from finsent.references import ALIAS, VERSION, Reference, only_match, parse
from finsent.registry.aliases import Aliases, check_alias
from finsent.registry.card import model_card
from finsent.registry.card_usage import usage_section
from finsent.registry.gate import Clearance, Gate
from finsent.registry.model_version import ModelVersion
from finsent.registry.version_files import (
    copy_files,
    digest_of_files,
    make_read_only,
    model_files,
    version_file,
)
from finsent.registry.version_manifest import CARD, MANIFEST, VersionFile, VersionManifest
from finsent.storage import Location, as_location

log = logging.getLogger(__name__)


class Registry:
    """A registry in a directory or in a bucket."""

    def __init__(self, root: Path | str | Location) -> None:
        self.location = as_location(root, "registry.root")
        self._trees = self.location.trees
        self._aliases = Aliases(self.location / "aliases")

    @property
    def root(self) -> Path:
        """The directory of a local registry.

        Raises:
            InputError: the registry is in a bucket.
        """
        return self.location.path

    def check_writable(self) -> None:
        """Check that versions and aliases can be written, so that a wrong root fails early.

        Raises:
            InputError: the root cannot be created or written.
        """
        (self.location / "versions").check_writable()
        self._aliases.check_writable()

    def exists(self) -> bool:
        """Return whether anything was stored here."""
        if self.location.is_local:
            return self.root.is_dir()
        return bool(self.location.store.list_folders(""))

    # --- versions ---

    def versions(self) -> list[ModelVersion]:
        """Return all versions, oldest first."""
        names = filter(VERSION_ID.fullmatch, self._trees.names("versions"))
        versions = [self._listed(name) for name in names if self.is_published(name)]
        return sorted(versions, key=lambda version: (version.created, version.version))

    def _listed(self, version: str) -> ModelVersion:
        """Return a version, without fetching its files from a bucket."""
        key = _key(version)
        if self.location.is_local:
            return ModelVersion(self.version_dir(version))
        data = self._trees.read_file(key, MANIFEST)
        return ModelVersion(Path(version), self._trees.locate(key), data or b"")

    def _fetched(self, version: str) -> ModelVersion:
        """Return a version with its files, verified.

        Raises:
            InputError: the version is missing or damaged.
        """
        uri = "" if self.location.is_local else self._trees.locate(_key(version))
        return ModelVersion(self.version_dir(version), uri).verify()

    def version_id(self, model_dir: Path) -> str:
        """Return the id that a model's directory has, or would get, as a version.

        Raises:
            InputError: the directory is incomplete.
        """
        check_model_dir(model_dir)
        return digest_of_files(model_files(model_dir))

    def publish(
        self,
        model_dir: Path,
        metrics: StoredMetrics,
        code: Mapping[str, object],
        gate: Gate | None = None,
        *,
        license: str | None = None,
        share: bool = False,
    ) -> ModelVersion:
        """Copy a trained, evaluated model into the registry. The same model gets the same id.

        A version's files are read-only. An existing version does not change: it has the gate and
        the license of its first publishing.

        Args:
            model_dir: written by `finsent.modeling.classifier.save_classifier`.
            metrics: of the test split; without a key: the model was not measured.
            code: commit and package versions.
            gate: that the version passed to become champion; None: no comparison was needed.
            license: of the model, for its card; None: not stated, or its origin's.
            share: hard-link large files instead of copying them, where the file system can. Only
                for a directory whose writers replace files and never write them in place.

        Raises:
            InputError: the metrics or the model's directory are incomplete, or the root is not
                writable.
        """
        _check_complete(metrics, model_dir)
        self.check_writable()
        check_model_dir(model_dir)
        files = model_files(model_dir)
        version = digest_of_files(files)
        if self._trees.is_published(_key(version)):
            return self._existing(version, license)
        # Another publisher's version may appear, complete, at any moment: then it stays.
        with self._trees.publish(_key(version)) as staging:
            copy_files(files, model_dir, staging, share=share)
            provenance = read_provenance(model_dir)
            card = staging / CARD
            text = model_card(
                version,
                provenance,
                metrics,
                files,
                code,
                license,
                usage_section(model_dir),
                gate,
            )
            card.write_text(text, encoding="utf-8")
            all_files = (*files, version_file(card, staging))
            manifest = _manifest(
                version, all_files, model_dir, provenance, metrics, gate, license, code
            )
            manifest.write(staging / MANIFEST)
            make_read_only(staging, card.stat().st_mode)
        return self._fetched(version)

    def _existing(self, version: str, license: str | None) -> ModelVersion:
        """Verify a version that is published again.

        Raises:
            InputError: the version is incomplete or damaged.
        """
        location = self._trees.locate(_key(version))
        if not self.is_published(version):
            raise InputError(
                f"{location!r}: is incomplete (no {MANIFEST}). Delete it and publish again."
            )
        existing = self._fetched(version)
        if license is not None and existing.manifest.license != license:
            log.warning(
                "publish.license=%r: is not applied, as the version %s exists already and never "
                "changes. Delete %r and publish again for another license.",
                license,
                version,
                location,
            )
        return existing

    def get(self, reference: str, field: str | None = None) -> ModelVersion:
        """Return the version of an id or an alias, verified.

        Args:
            field: the setting that holds the reference, for messages; None: no setting.

        Raises:
            InputError: there is no such version, it is damaged, or the reference names two.
        """
        version = self.resolve(reference, field)
        if version is None or not self.is_published(version):
            known = [*self.aliases(), *(v.version for v in self.versions())]
            subject = f"{field}={reference!r}" if field else f"model {reference!r}"
            raise InputError(
                f"{subject}: no such alias or version in {str(self.location)!r} (known: "
                f"{', '.join(known) or 'none, publish one first'}). Name an existing one."
            )
        return self._fetched(version)

    def resolve(self, reference: str, field: str | None = None) -> str | None:
        """Return the id of the version that `alias:NAME`, `version:ID` or a bare name refers to.

        Args:
            field: the setting that holds the reference, for messages; None: no setting.

        Returns:
            None: there is no such alias or version.

        Raises:
            InputError: the reference names two versions, or another kind of thing.
        """
        field = field or "model"
        versions = self.matches(parse(reference, field, (ALIAS, VERSION)))
        only_match(reference, field, {k: Path(_key(v)) for k, v in versions.items()})
        return next(iter(versions.values()), None)

    def matches(self, reference: Reference) -> dict[str, str]:
        """Return the ids of the versions that a reference may name, by unambiguous spelling."""
        name = reference.name
        versions: dict[str, str] = {}
        if reference.may_be(ALIAS) and name in (aliases := self.aliases()):
            versions[f"{ALIAS}:{name}"] = aliases[name]
        is_id = VERSION_ID.fullmatch(name) is not None
        if reference.may_be(VERSION) and is_id and self.is_published(name):
            versions[f"{VERSION}:{name}"] = name
        return versions

    def version_dir(self, version: str) -> Path:
        """Return the directory of a version: its own, or that of its copy in the cache.

        Raises:
            InputError: the registry is in a bucket that has no such version.
        """
        if self.location.is_local:
            return self.root / "versions" / version
        return self._trees.fetch(_key(version))

    def is_published(self, version: str) -> bool:
        """Return whether there is a version with this id, damaged or not."""
        return self._trees.has_file(_key(version), MANIFEST)

    def version_at(self, path: Path) -> str | None:
        """Return the id of the version at a path or a link to it; None: no version is there."""
        if not self.location.is_local:
            is_copy = self.location.cache.holds(path) and VERSION_ID.fullmatch(path.name)
            return path.name if is_copy and self.is_published(path.name) else None
        versions = (self.root / "versions").resolve()
        for folder in (path.absolute(), path.resolve()):
            if folder.parent.resolve() == versions and VERSION_ID.fullmatch(folder.name):
                return folder.name
        return None

    # --- aliases ---

    def aliases(self) -> dict[str, str]:
        """Return the version id by alias."""
        return self._aliases.versions()

    def gates(self, version: str) -> dict[str, Gate | None]:
        """Return the gates of a version by alias; None: no comparison was needed.

        The manifest has the gate of the first publishing, and never changes. A later promotion
        records its gate with the alias.
        """
        records = {alias: self._aliases.get(alias) for alias in self.aliases()}
        return {
            alias: record.gate
            for alias, record in records.items()
            if record is not None and record.version == version
        }

    def gate_of(self, reference: str, version: ModelVersion) -> Gate | None:
        """Return the gate that a version passed; None: no comparison was needed.

        Args:
            reference: of an alias: return the gate of the promotion that pointed the alias at
                `version`; else of the version's first publishing.
        """
        parsed = parse(reference, "model", (ALIAS, VERSION))
        if parsed.may_be(ALIAS):
            record = self._aliases.get(parsed.name)
            if record is not None and record.version == version.version:
                return record.gate
        return version.manifest.gate

    def promote(
        self, reference: str, alias: str, clearance: Clearance | None = None
    ) -> ModelVersion:
        """Point an alias at a version, atomically: readers see the old version or the new one.

        Args:
            clearance: of the gate, stored with the alias; None: the alias has no gate.

        Raises:
            InputError: the version is missing or damaged, the alias is not a valid name, or it has
                moved since the clearance was given.
        """
        check_alias(alias)
        version = self.get(reference)
        self.check_writable()
        self._aliases.move(alias, version.version, clearance)
        return version

    def rollback(self, alias: str) -> ModelVersion:
        """Point an alias back at its previous version.

        Raises:
            InputError: the alias is unknown or has no earlier version.
        """
        previous = self._aliases.move_back(alias, self.get)
        return self._fetched(previous)


def _key(version: str) -> str:
    return f"versions/{version}"


def _check_complete(metrics: StoredMetrics, model_dir: Path) -> None:
    """Refuse metrics in which a figure of the registry is missing.

    Raises:
        InputError: the metrics are incomplete.
    """
    if (missing := metrics.missing) and metrics.is_measured:
        raise InputError(
            f"{str(model_dir)!r}: its metrics lack {', '.join(missing)}. Evaluate the model again."
        )


def _manifest(
    version: str,
    files: tuple[VersionFile, ...],
    model_dir: Path,
    provenance: Provenance,
    metrics: StoredMetrics,
    gate: Gate | None,
    license: str | None,
    code: Mapping[str, object],
) -> VersionManifest:
    return VersionManifest(
        version=version,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        labels=LABELS,
        files=files,
        metrics=metrics,
        gate=gate,
        license=license,
        exports=_exports(model_dir),
        backbone=provenance.backbone,
        origin=provenance.origin,
        dataset=provenance.dataset,
        config=provenance.config,
        code=code,
    )


def _exports(model_dir: Path) -> tuple[Export, ...]:
    """Return the exports of a model with the figures of the parity gate, refused exports too."""
    path = model_dir / EXPORTS
    return ExportsRecord.read(path).exports if path.is_file() else ()
