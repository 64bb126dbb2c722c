"""What a trained classifier's directory holds; readable without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.files import read_json
from finsent.labels import check_labels

PROVENANCE = "provenance.json"
REMEDY = "the directory is damaged: train again, or use another model"
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json", PROVENANCE)


def check_model_dir(path: Path) -> None:
    """Refuse what is not a whole classifier with our labels.

    Raises:
        InputError: a file is missing, or the labels are others.
    """
    for name in _NEEDED:
        if not (path / name).is_file():
            raise InputError(f"{str(path)!r}: {name} is missing; not a model that finsent trained")
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise InputError(f"{path / 'config.json'}: not a model's config; {REMEDY}")
    check_labels(config.get("id2label") or {}, str(path / "config.json"))


def read_provenance(path: Path) -> dict[str, Any]:
    """Where a model came from, and what inference has to know.

    Raises:
        InputError: the record is missing or damaged.
    """
    provenance = read_json(path / PROVENANCE)
    if not isinstance(provenance, dict) or "max_length" not in provenance:
        raise InputError(f"{path / PROVENANCE}: has no max_length; {REMEDY}")
    return provenance
