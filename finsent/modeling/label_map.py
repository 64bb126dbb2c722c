"""Map the labels of an adopted model onto finsent's labels. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.records import ForeignRecord, Record
from finsent.spellings import spellings

LABEL_MAP = "label_map.json"
# Logit of a label that the source model lacks. At every temperature that a calibration can fit (at
# most 20) its probability is exactly 0 in fp32. Unlike -inf, exported graphs can hold it.
ABSENT_LOGIT = -1e4

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabelMap:
    """The label of finsent for each label of a source model."""

    sources: tuple[str, ...]  # in the order of the source model's logits
    targets: tuple[str, ...]  # one of `LABELS` per source label

    @property
    def absent(self) -> list[str]:
        """Labels of finsent that the source model never answers."""
        return [label for label in LABELS if label not in self.targets]

    @property
    def is_one_to_one(self) -> bool:
        """Whether no two source labels stand for the same label."""
        return len(set(self.targets)) == len(self.targets)

    @property
    def pairs(self) -> dict[str, str]:
        """Label of finsent by source label."""
        return dict(zip(self.sources, self.targets, strict=True))

    def columns(self, label: str) -> list[int]:
        """Return the columns of the source model's logits that stand for a label of finsent."""
        return [i for i, target in enumerate(self.targets) if target == label]

    def fold(self, logits: Logits) -> Logits:
        """Return logits of `LABELS`, shape (rows, labels), from logits of the source's labels.

        The softmax of the result is the sum of the source's probabilities per label, since
        log(sum of exp) adds up probabilities before they are normalized. A temperature must divide
        the source's logits: dividing the result would no longer give the sum of probabilities.
        """
        folded = np.full((len(logits), len(LABELS)), ABSENT_LOGIT, logits.dtype)
        for i, label in enumerate(LABELS):
            columns = self.columns(label)
            if columns:
                folded[:, i] = np.logaddexp.reduce(logits[:, columns].astype(np.float64), axis=1)
        return folded


class LabelMapRecord(Record):
    """The content of `label_map.json`."""

    schema_version: Literal[1]
    labels: dict[str, str]  # label of finsent by source label

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged label map."""
        return "Adopt the model again."


class ModelConfigFile(ForeignRecord):
    """`config.json` of transformers."""

    id2label: dict[str, object] | None = None

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged config."""
        return "The directory is damaged. Train again, or use another model."


def write_label_map(path: Path, label_map: LabelMap) -> None:
    """Write a map into a model's directory."""
    LabelMapRecord(schema_version=1, labels=label_map.pairs).write(path / LABEL_MAP)


def read_label_map(path: Path) -> LabelMap | None:
    """Return the map of a model's directory; None where the model answers `LABELS` itself.

    Raises:
        InputError: the map is damaged, or belongs to other labels than the model's config has.
    """
    file = path / LABEL_MAP
    if not file.is_file():
        return None
    record, config = LabelMapRecord.read(file), ModelConfigFile.read(path / "config.json")
    names = label_names(config.id2label, str(path / "config.json"))
    pairs = record.labels
    if set(names) != pairs.keys() or not set(pairs.values()) <= set(LABELS):
        raise InputError(
            f"{file}: maps {pairs}, but the model's labels are {names}. {record.remedy()}"
        )
    return LabelMap(names, tuple(pairs[name] for name in names))


def label_names(id2label: Mapping[Any, object] | None, file: str) -> tuple[str, ...]:
    """Return the labels of a model's config.json, in the order of its logits.

    Args:
        file: of the config, for messages.

    Raises:
        InputError: the config has no usable `id2label`.
    """
    try:
        by_id = {int(key): str(name) for key, name in (id2label or {}).items()}
    except (TypeError, ValueError):
        by_id = {}
    names = tuple(by_id[i] for i in range(len(by_id)) if i in by_id)
    if not names or len(names) != len(by_id) or len(set(names)) != len(names):
        raise InputError(
            f"{file}: id2label={id2label!r} does not name each label once, from 0 on. Write e.g. "
            '{"0": "negative", "1": "neutral", "2": "positive"}'
        )
    return names


def contradicting_ids(
    id2label: Mapping[int, Any], label2id: Mapping[str, Any] | None
) -> str | None:
    """Describe labels with different outputs in `id2label` and `label2id`; None: the two agree.

    Names that only one of the two has do not contradict the other: transformers leaves LABEL_0,
    LABEL_1, ... in `label2id` where an author sets `id2label` alone.
    """
    ids = {str(name): int(i) for i, name in id2label.items()}
    contradictions = [
        f"{name!r} is {ids[name]} in id2label and {i} in label2id"
        for name, i in (label2id or {}).items()
        if name in ids and ids[name] != i
    ]
    return ", ".join(contradictions) or None


def make_label_map(names: tuple[str, ...], targets: Mapping[str, str]) -> LabelMap:
    """Map a source model's labels onto `LABELS`.

    Args:
        names: the source's labels, in the order of its logits.
        targets: label of finsent by source label, in any case, `true` also for `yes` and `on`, as
            YAML reads them; a source label that is one of `LABELS` maps onto itself.

    Raises:
        InputError: a source label is not mapped, or the map names one that the source lacks.
    """
    exact = {key.casefold(): label for key, label in targets.items()}
    respelled = {word: label for key, label in exact.items() for word in spellings(key)}
    label_by_name = {label: label for label in LABELS} | respelled | exact
    value = "{" + ", ".join(f"{key}: {label}" for key, label in targets.items()) + "}"
    keys = [name.strip().casefold() for name in names]
    unknown = [key for key in targets if not {*spellings(key.casefold())} & {*keys}]
    if unknown:
        raise InputError(
            f"adopt.label_map={value}: the model has no label {unknown[0]!r}. Its labels are "
            f"{', '.join(names)}."
        )
    missing = [name for name, key in zip(names, keys, strict=True) if key not in label_by_name]
    if missing:
        example = ", ".join(f"{name!r}: LABEL" for name in names)
        raise InputError(
            f"adopt.label_map={value}: does not map {', '.join(map(repr, missing))}. Write "
            f"label_map={{{example}}}, each LABEL one of {', '.join(LABELS)}; several may share "
            "one."
        )
    return LabelMap(names, tuple(label_by_name[key] for key in keys))
