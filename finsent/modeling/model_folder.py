"""Find a model's directory by path or hub id."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from finsent.disk import find_disk_error
from finsent.errors import InputError, first_line
from finsent.modeling.file_checks import weight_file

_FILES = ["*.json", "*.txt", "*.model", "README.md", "model*.safetensors"]
_PICKLED_FILES = [*_FILES, "pytorch_model*.bin"]


@dataclass(frozen=True)
class ModelFolder:
    """A model's directory on this machine."""

    path: Path  # absolute
    commit: str | None = None  # of a hub repository


def find_model_folder(reference: str, revision: str | None, field: str, remedy: str) -> ModelFolder:
    """Return a local directory, or download a hub repository into the hub client's cache.

    Only configs, tokenizers and weights are downloaded; `.bin` weights only where the repository
    has no safetensors.

    Args:
        reference: a path or a hub id.
        revision: commit, tag or branch of a hub id; None: its default.
        field: setting that names the model, for messages.
        remedy: last words of the message where neither a directory nor a repository exists.

    Raises:
        InputError: the reference is neither a directory nor a hub id within reach, or a directory
            with a revision.
    """
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 - Path raises for unknown users
    if path.is_dir():
        if revision is not None:
            raise InputError(
                f"{field}={reference!r}: is a local directory, which has no revision {revision!r}. "
                "Leave the revision empty, or give a hub id that names no directory here."
            )
        return ModelFolder(path.absolute())
    if path.is_absolute() or reference.startswith((".", "~")):
        raise InputError(
            f"{field}={reference!r}: no such directory. Give a folder with "
            "config.json, tokenizer.json and model.safetensors, or 'demo'."
        )
    path = _download(reference, revision, field, remedy)
    return ModelFolder(path, path.name)


def _download(reference: str, revision: str | None, field: str, remedy: str) -> Path:
    # Local directories need no hub client, whose import costs 0.2 s.
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(reference, revision=revision, allow_patterns=_FILES))
        if weight_file(path) is None:
            path = Path(
                snapshot_download(reference, revision=revision, allow_patterns=_PICKLED_FILES)
            )
    except HFValidationError:
        raise InputError(
            f"{field}={reference!r}: neither a directory nor a hub id. {remedy}"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if (full_disk := find_disk_error(error)) is not None:
            raise full_disk.with_setting("HF_HOME", HF_HUB_CACHE) from None
        raise InputError(
            f"{field}={reference!r}: no such directory, and the model hub did not "
            f"return it ({type(error).__name__}: {first_line(error)[:120]}). {remedy}"
        ) from None
    return path
