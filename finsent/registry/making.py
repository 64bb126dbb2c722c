"""How a model was made, in the words of its card: data, splits, base model, files and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_USES = {
    "train": "train",
    "validation": "choose the epoch, fit temperature and threshold, check the exports",
    "test": "report the figures below",
}
_WEIGHTS = (".safetensors", ".onnx", ".bin", ".xml")
_PACKAGES = ("finsent", "torch", "transformers", "tokenizers")


def cell(text: object) -> str:
    """Return a text that cannot end a table's cell or its code."""
    return " ".join(str(text).replace("`", "'").split()).replace("|", "\\|")


def data_section(dataset: Mapping[str, Any]) -> list[str]:
    """Return what a model was trained, chosen and measured on.

    Args:
        dataset: of the model's provenance.
    """
    lines = [
        "## Data",
        f"Dataset `{dataset.get('name')}`, version `{dataset.get('version')}`: "
        f"{dataset.get('rows')} distinct rows after cleaning.",
        "",
    ]
    inputs = dataset.get("inputs") or []
    if inputs:
        lines += ["| source | rows | license | SHA-256 |", "|---|---|---|---|"]
        lines += [
            f"| `{cell(file['source'])}` | {file['rows']} | "
            f"{cell(file.get('license') or 'not stated')} | {file['sha256']} |"
            for file in inputs
        ]
        lines.append("")
    splits = dataset.get("splits") or {}
    if splits:
        lines += ["| split | rows | used to |", "|---|---|---|"]
        lines += [f"| {name} | {rows} | {_USES[name]} |" for name, rows in splits.items()]
        lines.append("")
    return [*lines, split_sentences(dataset.get("rules")), ""]


def split_sentences(rules: Mapping[str, Any] | None) -> str:
    """Return which split a row belongs to, and what is on no two sides.

    Args:
        rules: `split`, `salt`, `near_duplicates` and `conflicts` of the data's settings; None: not
            recorded.
    """
    if rules is None:
        return "How the rows were split is not recorded."
    split, near = rules["split"], rules["near_duplicates"]
    group, time = split["group_by"], split["time"]
    shares = "/".join(f"{100 * split[name]:g}" for name in _USES)
    salt = f"{shares} %, salt `{cell(rules['salt'])}`"
    if time["column"]:
        said = (
            f"The split of a row depends on its time in `{cell(time['column'])}`: rows before "
            f"{time['validation_from']} train, rows from {time['test_from']} on test, those "
            "between validate. No text is in two splits."
        )
    elif group:
        said = (
            f"The split of a row depends on a hash of its `{cell(group)}` ({salt}): rows with the "
            "same value are in one split. No text is in two splits."
        )
    else:
        said = (
            f"The split of a row depends on a hash of its text ({salt}): no text is in two splits."
        )
    if not near["enabled"]:
        return f"{said} Near-duplicates were not looked for and may be in two splits."
    alike = f"texts whose shingles have a Jaccard similarity of {near['threshold']:g} or more"
    if group or time["column"]:
        return f"{said} Of near-duplicates ({alike}) in two splits, the newer was removed."
    return f"{said} Near-duplicates ({alike}) are in one split."


def base_section(provenance: Mapping[str, Any]) -> list[str]:
    """Return what a model was fine-tuned from."""
    base, name = provenance.get("base"), cell(provenance.get("backbone"))
    lines = ["## Base model"]
    if base is None:
        return [*lines, f"`{name}`. License: not stated.", ""]
    hub = f" (`{base['hub_id']}` of the Hugging Face hub)" if base["hub_id"] else ""
    asked = provenance.get("revision")
    revision = base["commit"] or asked
    revision = f", revision `{cell(revision)}`" if revision else ""
    if base["is_random"]:
        lines.append(f"`{name}`: an encoder with random weights, for dry runs.")
    else:
        lines.append(f"`{name}`{hub}{revision}. License: {base['license'] or 'not stated'}.")
    return [*lines, "", *_digests("file of the base model", base["files"])]


def files_section(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the digests of weights and tokenizer.

    Args:
        files: of the version's manifest.
    """
    shown = [
        file
        for file in files
        if file["path"].endswith(_WEIGHTS) or file["path"] == "tokenizer.json"
    ]
    return ["## Files", *_digests("file", shown)] if shown else []


def _digests(head: str, files: Sequence[Mapping[str, Any]]) -> list[str]:
    if not files:
        return []
    rows = [f"| {cell(file['path'])} | {file['sha256']} |" for file in files]
    return [f"| {head} | SHA-256 |", "|---|---|", *rows, ""]


def code_section(provenance: Mapping[str, Any], code: Mapping[str, Any]) -> list[str]:
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
    recipe = provenance.get("config") or {}
    if "seed" in recipe:
        lines.append(f"Seed {recipe['seed']}; `provenance.json` has the complete recipe.")
    return [*lines, ""]
