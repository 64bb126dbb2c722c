"""The labels of a model from elsewhere, and how they become ours; readable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finsent.errors import InputError
from finsent.files import read_json, write_json
from finsent.labels import LABELS
from finsent.spellings import spellings

LABEL_MAP = "label_map.json"
LABEL_MAP_SCHEMA = 1
# Logit of a label that the source model lacks. At every temperature that a calibration can find
# (at most 20) its probability is exactly 0 in fp32, and unlike -inf it survives exports.
ABSENT_LOGIT = -1e4

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabelMap:
    """Which of our labels each label of a source model stands for."""

    sources: tuple[str, ...]  # in the order of the source model's logits
    targets: tuple[str, ...]  # one of `LABELS` per source label

    @property
    def absent(self) -> list[str]:
        """Labels of ours that the source model never answers."""
        return [label for label in LABELS if label not in self.targets]

    @property
    def is_one_to_one(self) -> bool:
        """Whether no two source labels stand for the same label."""
        return len(set(self.targets)) == len(self.targets)

    @property
    def pairs(self) -> dict[str, str]:
        """Our label by source label."""
        return dict(zip(self.sources, self.targets, strict=True))

    def columns(self, label: str) -> list[int]:
        """Logits of the source model that stand for one of our labels."""
        return [i for i, target in enumerate(self.targets) if target == label]

    def fold(self, logits: Logits) -> Logits:
        """Turn logits of the source's labels into logits of ours, shape (rows, labels).

        A temperature has to divide the source's logits: divided after this, the result would no
        longer be the sum of probabilities.

        The softmax of the result is the sum of the source's probabilities per label, since
        log(sum of exp) adds up probabilities before they are normalized.
        """
        folded = np.full((len(logits), len(LABELS)), ABSENT_LOGIT, logits.dtype)
        for i, label in enumerate(LABELS):
            columns = self.columns(label)
            if columns:
                folded[:, i] = np.logaddexp.reduce(logits[:, columns].astype(np.float64), axis=1)
        return folded


def write_label_map(path: Path, label_map: LabelMap) -> None:
    """Write a map into a model's directory."""
    record = {"schema_version": LABEL_MAP_SCHEMA, "labels": label_map.pairs}
    write_json(path / LABEL_MAP, record)


def read_label_map(path: Path) -> LabelMap | None:
    """Return the map of a model's directory; None where the model answers our labels itself.

    Raises:
        InputError: the map is damaged, or belongs to other labels than the model's config has.
    """
    file = path / LABEL_MAP
    if not file.is_file():
        return None
    record, config = read_json(file), read_json(path / "config.json")
    pairs = record.get("labels") if isinstance(record, dict) else None
    if not isinstance(pairs, dict) or record.get("schema_version") != LABEL_MAP_SCHEMA:
        raise InputError(f"{file}: not a label map of schema {LABEL_MAP_SCHEMA}; adopt again")
    names = label_names(config if isinstance(config, dict) else {}, str(path / "config.json"))
    if set(names) != pairs.keys() or not set(pairs.values()) <= set(LABELS):
        raise InputError(f"{file}: maps {pairs}, but the model's labels are {names}; adopt again")
    return LabelMap(names, tuple(pairs[name] for name in names))


def label_names(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the labels of a model's config.json, in the order of its logits.

    Raises:
        InputError: the config has no usable `id2label`.
    """
    found = config.get("id2label")
    try:
        by_id = {int(key): str(name) for key, name in dict(found or {}).items()}
    except (TypeError, ValueError):
        by_id = {}
    names = tuple(by_id[i] for i in range(len(by_id)) if i in by_id)
    if not names or len(names) != len(by_id) or len(set(names)) != len(names):
        raise InputError(
            f"{where}: id2label={found!r} does not name each label once, from 0 on; write e.g. "
            '{"0": "negative", "1": "neutral", "2": "positive"}'
        )
    return names


def other_ids(id2label: Mapping[int, Any], label2id: Mapping[str, Any] | None) -> str | None:
    """Return labels to which `label2id` gives another output than `id2label`; None: it agrees.

    Names that only one of the two has say nothing about the order: transformers leaves LABEL_0
    and so on in `label2id` where an author sets `id2label` alone.
    """
    ids = {str(name): int(i) for i, name in id2label.items()}
    wrong = [
        f"{name!r} is {ids[name]} in id2label and {i} in label2id"
        for name, i in (label2id or {}).items()
        if name in ids and ids[name] != i
    ]
    return ", ".join(wrong) or None


def make_label_map(names: tuple[str, ...], wanted: Mapping[str, str]) -> LabelMap:
    """Map a source model's labels onto ours.

    Args:
        names: the source's labels, in the order of its logits.
        wanted: our label by source label, in any case, `true` also for `yes` and `on`, as YAML
            reads them; a label that is one of ours maps onto itself.

    Raises:
        InputError: a source label is not mapped, or the map names one that the source lacks.
    """
    exact = {key.casefold(): label for key, label in wanted.items()}
    also = {word: label for key, label in exact.items() for word in spellings(key)}
    chosen = {label: label for label in LABELS} | also | exact
    shown = "{" + ", ".join(f"{k}: {v}" for k, v in wanted.items()) + "}"
    folded = [name.strip().casefold() for name in names]
    unknown = [key for key in wanted if not {*spellings(key.casefold())} & {*folded}]
    if unknown:
        raise InputError(
            f"adopt.label_map={shown}: the model has no label {unknown[0]!r}; its labels are "
            f"{', '.join(names)}"
        )
    missing = [name for name, key in zip(names, folded, strict=True) if key not in chosen]
    if missing:
        example = ", ".join(f"{name!r}: LABEL" for name in names)
        raise InputError(
            f"adopt.label_map={shown}: does not map {', '.join(map(repr, missing))}; write "
            f"label_map={{{example}}}, each LABEL one of {', '.join(LABELS)}; several may share one"
        )
    return LabelMap(names, tuple(chosen[key] for key in folded))
