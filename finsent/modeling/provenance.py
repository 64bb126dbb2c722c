"""The record of what a model was made from: backbone, dataset, recipe, files and license."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ConfigDict, ValidationError

from finsent.files import read_json, sha256_file
from finsent.modeling.model_dir import PROVENANCE
from finsent.records import FileDigest, ForeignRecord, JsonObject, Record, SparseRecord

if TYPE_CHECKING:
    from finsent.modeling.backbone import Backbone

# The files of the backbone `demo` are those of this hub repository, whose license they have.
_DEMO_HUB_ID, _DEMO_LICENSE = "sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"
_DIGESTED = ("*.safetensors", "pytorch_model*.bin", "tokenizer.json", "vocab.*", "*.model")
_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")  # also of versions: they name directories
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


class BackboneOrigin(Record):
    """Origin of a trained model's backbone."""

    hub_id: str | None  # None: not from a hub
    commit: str | None  # of the hub's repository
    license: str | None  # None: not stated
    is_random: bool  # no weights were trained before
    files: tuple[FileDigest, ...]


class AdoptedOrigin(Record):
    """Origin of an adopted model."""

    source: str  # hub id or directory
    revision: str | None
    license: str | None
    architecture: str
    label_map: dict[str, str]  # finsent's label by the model's own label
    absent_labels: tuple[str, ...]
    files: tuple[FileDigest, ...]


class DatasetSource(SparseRecord):
    """A source of a dataset version; older versions of finsent wrote fewer keys.

    Further keys, of a later version, are kept.
    """

    model_config = ConfigDict(extra="allow")

    source: str  # name, as in the column `source`
    bytes: int | None = None
    sha256: str
    rows: int
    license: str | None = None  # None: not stated
    hub_id: str | None = None  # None: not from Hugging Face


class DatasetOrigin(SparseRecord):
    """The dataset version that a model was trained on; older versions of finsent wrote fewer keys.

    Further keys, of a later version, are kept.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    version: str
    rows: int | None = None
    inputs: tuple[DatasetSource, ...] | None = None
    splits: dict[str, int] | None = None  # rows by split
    rules: JsonObject | None = None  # settings of `data` that decide the splits


class Provenance(SparseRecord):
    """The content of `provenance.json`; inference needs `max_length` alone."""

    backbone: str | None = None
    revision: str | None = None
    max_length: int  # tokens
    labels: tuple[str, ...] | None = None
    base: BackboneOrigin | None = None  # None: the model was adopted
    dataset: DatasetOrigin | None = None  # None: not known
    config: JsonObject | None = None  # the training recipe, as the section `train` has it
    origin: AdoptedOrigin | None = None  # None: finsent trained the model
    epoch: int | None = None

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged provenance."""
        return "The directory is damaged: train again, or use another model."


def read_provenance(model_dir: Path) -> Provenance:
    """Return what a model was made from, and the settings that inference needs.

    Raises:
        InputError: the record is missing or damaged.
    """
    return Provenance.read(model_dir / PROVENANCE)


class _DatasetName(ForeignRecord):
    name: str
    version: str


class _ForeignProvenance(ForeignRecord):
    dataset: JsonObject | None = None


def read_adopted_dataset(model_dir: Path) -> DatasetOrigin | None:
    """Return the dataset version that finsent trained a source on; None: it is not known.

    The rows that the model was trained on must not count as unseen under the model's new name.

    Raises:
        InputError: the source's `provenance.json` is not JSON.
    """
    file = model_dir / PROVENANCE
    if not file.is_file():
        return None
    try:
        dataset = _ForeignProvenance.model_validate(read_json(file)).dataset
        named = _DatasetName.model_validate(dataset)
    except ValidationError:  # no dataset, or a file of another tool
        return None
    if not all(map(_DATASET_NAME.fullmatch, (named.name, named.version))):
        return None
    try:
        return DatasetOrigin.model_validate(dataset)
    except ValidationError:  # other keys of another version
        return DatasetOrigin(name=named.name, version=named.version)


class _CardHead(ForeignRecord):
    license: object = None


def read_license(card: Path) -> str | None:
    """Return the license in the YAML head of a model card; None: no card, or none stated."""
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return None
    try:
        head = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
        stated = _CardHead.model_validate(head).license
    except (yaml.YAMLError, ValidationError):
        return None
    return " ".join(str(stated).split()) if stated else None


def backbone_origin(backbone: Backbone) -> BackboneOrigin:
    """Return what the provenance of a model records of the backbone it was trained from."""
    folder = Path(backbone.folder or backbone.source)
    files = {file for pattern in _DIGESTED for file in folder.glob(pattern) if file.is_file()}
    is_hub = backbone.commit is not None and _HUB_ID.fullmatch(backbone.name) is not None
    hub_id = backbone.name if is_hub else None
    return BackboneOrigin(
        hub_id=_DEMO_HUB_ID if backbone.is_demo else hub_id,
        commit=backbone.commit,
        license=_DEMO_LICENSE if backbone.is_demo else read_license(folder / "README.md"),
        is_random=backbone.is_random,
        files=tuple(FileDigest(path=file.name, sha256=sha256_file(file)) for file in sorted(files)),
    )
