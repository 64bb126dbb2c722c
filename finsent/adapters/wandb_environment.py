"""Environment variables and credentials of Weights & Biases, without its package.

A job without tracking needs no import of the package `wandb`, which takes 0.4 CPU seconds.
"""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

Mode = Literal["online", "offline", "disabled"]
_MODES: tuple[Mode, ...] = ("online", "offline", "disabled")

# Directories that W&B otherwise creates in the home directory. It reads the variables when a run
# starts; `wandb.init` has no arguments for them.
FOLDER_VARIABLES = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")
_KEY_VARIABLE = "WANDB_API_KEY"
_DEFAULT_SERVER = "https://api.wandb.ai"


def environment_mode() -> Mode:
    """Return the mode of WANDB_MODE; else online where a key is set. Makes no network request."""
    value = os.environ.get("WANDB_MODE", "")
    for mode in _MODES:
        if value == mode:
            return mode
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get(_KEY_VARIABLE):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or _DEFAULT_SERVER).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def without_key(text: str) -> str:
    """Return a text in which the API key is replaced."""
    key = os.environ.get(_KEY_VARIABLE)
    return text.replace(key, "***") if key else text


def keep_folders_in(folder: Path) -> None:
    """Keep W&B's directories in a folder, unless the environment names others."""
    for variable in FOLDER_VARIABLES:
        name = variable.split("_")[1].lower()
        os.environ.setdefault(variable, str(folder / "wandb" / name))
