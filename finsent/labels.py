"""The list of labels; ids are positions in it. Every checkpoint and model stores the labels."""

from __future__ import annotations

from collections.abc import Mapping

from finsent.errors import InputError

LABELS: tuple[str, ...] = ("negative", "neutral", "positive")
ID2LABEL: dict[int, str] = dict(enumerate(LABELS))
LABEL2ID: dict[str, int] = {label: i for i, label in ID2LABEL.items()}


def check_labels(id2label: Mapping[int, str] | Mapping[str, object], where: str) -> None:
    """Refuse a model whose ids have other labels than `LABELS`.

    Args:
        id2label: the mapping saved with the model; keys may be ints or their JSON strings.
        where: the file of the mapping, for the message.

    Raises:
        InputError: the mapping differs from `ID2LABEL`.
    """
    labels = {str(key): value for key, value in id2label.items()}
    if labels != {str(key): value for key, value in ID2LABEL.items()}:
        raise InputError(
            f"{where}: labels are {labels}, but finsent's are {ID2LABEL}. "
            "Use a model that finsent trained, adopt this one with `python -m ray_jobs.adopt`, or "
            "train one from this backbone."
        )
