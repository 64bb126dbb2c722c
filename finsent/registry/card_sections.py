"""Sections of a model card: data and splits, base model, files, and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finsent.modeling.provenance import DatasetOrigin, Provenance
from finsent.records import FileDigest, ForeignRecord
from finsent.registry.version_manifest import VersionFile

_USES = {
    "train": "train",
    "validation": "choose the epoch, fit temperature and threshold, check the exports",
    "test": "report the figures below",
}
_WEIGHTS = (".safetensors", ".onnx", ".bin", ".xml")
_PACKAGES = ("finsent", "torch", "transformers", "tokenizers")


def cell(text: object) -> str:
    """Return a text that cannot end a table cell or inline code."""
    return " ".join(str(text).replace("`", "'").split()).replace("|", "\\|")


def data_section(dataset: DatasetOrigin) -> list[str]:
    """Return the sources and splits that a model was trained, chosen and measured on."""
    rows = "an unknown number of" if dataset.rows is None else dataset.rows
    lines = [
        "## Data",
        f"Dataset `{dataset.name}`, version `{dataset.version}`: {rows} distinct rows after "
        "cleaning.",
        "",
    ]
    if dataset.inputs:
        lines += ["| source | rows | license | SHA-256 |", "|---|---|---|---|"]
        lines += [
            f"| `{cell(file.source)}` | {file.rows} | {cell(file.license or 'not stated')} "
            f"| {file.sha256} |"
            for file in dataset.inputs
        ]
        lines.append("")
    if dataset.splits:
        lines += ["| split | rows | used to |", "|---|---|---|"]
        lines += [f"| {name} | {rows} | {_USES[name]} |" for name, rows in dataset.splits.items()]
        lines.append("")
    return [*lines, split_sentences(dataset.rules), ""]


class _TimeRule(ForeignRecord):
    column: str | None
    validation_from: str | None
    test_from: str | None


class _SplitRule(ForeignRecord):
    train: float
    validation: float
    test: float
    group_by: str | None
    time: _TimeRule

    @property
    def shares(self) -> str:
        return "/".join(f"{100 * share:g}" for share in (self.train, self.validation, self.test))


class _NearDuplicatesRule(ForeignRecord):
    enabled: bool
    threshold: float


class _Rules(ForeignRecord):
    split: _SplitRule
    salt: str
    near_duplicates: _NearDuplicatesRule


def split_sentences(rules: Mapping[str, object] | None) -> str:
    """Return how rows were split, and which near-duplicates share a split.

    Args:
        rules: `split`, `salt`, `near_duplicates` and `conflicts` of the data's settings; None: not
            recorded.
    """
    if rules is None:
        return "How the rows were split is not recorded."
    recorded = _Rules.model_validate(rules)
    split, near_duplicates = recorded.split, recorded.near_duplicates
    group, time = split.group_by, split.time
    salt = f"{split.shares} %, salt `{cell(recorded.salt)}`"
    if time.column:
        sentences = (
            f"The split of a row depends on its time in `{cell(time.column)}`: rows before "
            f"{time.validation_from} train, rows from {time.test_from} on test, rows "
            "in between validate. No text is in two splits."
        )
    elif group:
        sentences = (
            f"The split of a row depends on a hash of its `{cell(group)}` ({salt}): rows with the "
            "same value are in one split. No text is in two splits."
        )
    else:
        sentences = (
            f"The split of a row depends on a hash of its text ({salt}): no text is in two splits."
        )
    if not near_duplicates.enabled:
        return f"{sentences} Near-duplicates were not looked for and may be in two splits."
    threshold = f"{near_duplicates.threshold:g}"
    definition = f"texts whose shingles have a Jaccard similarity of {threshold} or more"
    if group or time.column:
        return (
            f"{sentences} Of near-duplicates ({definition}) in two splits, the newer was removed."
        )
    return f"{sentences} Near-duplicates ({definition}) are in one split."


def base_section(provenance: Provenance) -> list[str]:
    """Return what a model was fine-tuned from."""
    base, name = provenance.base, cell(provenance.backbone)
    lines = ["## Base model"]
    if base is None:
        return [*lines, f"`{name}`. License: not stated.", ""]
    hub = f" (`{base.hub_id}` of the Hugging Face hub)" if base.hub_id else ""
    commit = base.commit or provenance.revision
    revision = f", revision `{cell(commit)}`" if commit else ""
    if base.is_random:
        lines.append(f"`{name}`: an encoder with random weights, for dry runs.")
    else:
        lines.append(f"`{name}`{hub}{revision}. License: {base.license or 'not stated'}.")
    return [*lines, "", *_digests("file of the base model", base.files)]


def files_section(files: Sequence[VersionFile]) -> list[str]:
    """Return the digests of weights and tokenizer.

    Args:
        files: of the version.
    """
    listed = [
        file for file in files if file.path.endswith(_WEIGHTS) or file.path == "tokenizer.json"
    ]
    return ["## Files", *_digests("file", listed)] if listed else []


def _digests(title: str, files: Sequence[VersionFile | FileDigest]) -> list[str]:
    if not files:
        return []
    rows = [f"| {cell(file.path)} | {file.sha256} |" for file in files]
    return [f"| {title} | SHA-256 |", "|---|---|", *rows, ""]


def code_section(provenance: Provenance, code: Mapping[str, Any]) -> list[str]:
    """Return with which code and recipe a model was made.

    Args:
        code: as `finsent.runs.code_identity` returns it.
    """
    if not code:
        return []
    commit = code.get("git_commit")
    changed = " with uncommitted changes" if code.get("git_dirty") else ""
    packages = code.get("packages") or {}
    versions = ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name))
    lines = [
        "## Code",
        f"Published by commit `{commit}`{changed}." if commit else "The commit is not recorded.",
    ]
    if versions:
        lines.append(f"Packages: {versions}.")
    recipe = provenance.config or {}
    if "seed" in recipe:
        lines.append(f"Seed {recipe['seed']}; `provenance.json` has the complete recipe.")
    return [*lines, ""]
