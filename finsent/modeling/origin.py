"""Where a model comes from: the files that it was read from, and the license that they state."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from finsent.files import sha256_file

if TYPE_CHECKING:
    from finsent.modeling.backbone import Backbone

# The demo's files are those of this repository, whose license they have.
_DEMO = {"hub_id": "sentence-transformers/all-MiniLM-L6-v2", "license": "apache-2.0"}
_DIGESTED = ("*.safetensors", "pytorch_model*.bin", "tokenizer.json", "vocab.*", "*.model")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def license_of(card: Path) -> str | None:
    """Return the license that the YAML head of a model card names."""
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return None
    try:
        head = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    except yaml.YAMLError:
        return None
    found = head.get("license") if isinstance(head, dict) else None
    return " ".join(str(found).split()) if found else None


def base_of(backbone: Backbone) -> dict[str, Any]:
    """Return what a model that is trained from a backbone should say of it, JSON-able.

    Returns:
        `hub_id` (null: not from a hub), `commit`, `license` (null: not stated), `is_random` (no
        weights were trained before), and `files` with their digests.
    """
    folder = Path(backbone.folder or backbone.source)
    found = {file for pattern in _DIGESTED for file in folder.glob(pattern) if file.is_file()}
    is_hub = backbone.commit is not None and _HUB_ID.fullmatch(backbone.name) is not None
    return {
        "hub_id": backbone.name if is_hub else None,
        "commit": backbone.commit,
        "license": license_of(folder / "README.md"),
        "is_random": backbone.is_random,
        "files": [{"path": file.name, "sha256": sha256_file(file)} for file in sorted(found)],
        **(_DEMO if backbone.is_demo else {}),
    }
