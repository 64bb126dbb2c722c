"""Names and completeness of the files in a classifier's directory. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from finsent.errors import InputError
from finsent.files import sha256_file
from finsent.labels import check_labels
from finsent.modeling.label_map import LABEL_MAP, LabelMap, ModelConfigFile, read_label_map
from finsent.records import ForeignRecord

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
PROVENANCE = "provenance.json"
CALIBRATION = "calibration.json"
EXPORTS = "exports.json"

# Classes whose tokenizer is tokenizer.json unchanged. transformers 4 has the first name only,
# transformers 5 has both.
PLAIN_TOKENIZER_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
INPUTS = ("input_ids", "attention_mask")  # the only inputs of a model
REMEDY = "The directory is damaged. Train again, or use another model."

_REQUIRED = (CONFIG, WEIGHTS, TOKENIZER, PROVENANCE)
_ANSWER_FILES = (WEIGHTS, CONFIG, TOKENIZER, LABEL_MAP, PROVENANCE, CALIBRATION, EXPORTS)


class TokenizerConfigFile(ForeignRecord):
    """`tokenizer_config.json` of transformers: the class, and what a BERT normalizer does."""

    tokenizer_class: JsonValue = None
    do_lower_case: JsonValue = None
    strip_accents: JsonValue = None
    tokenize_chinese_chars: JsonValue = None

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged config."""
        return "Correct the file, or use another model."

    @property
    def is_plain(self) -> bool:
        """Whether the tokenizer is tokenizer.json unchanged."""
        return self.tokenizer_class in PLAIN_TOKENIZER_CLASSES


def check_model_dir(path: Path) -> LabelMap | None:
    """Refuse a directory that is not a complete classifier with finsent's labels or a map to them.

    Returns:
        The label map; None where the model answers finsent's labels itself.

    Raises:
        InputError: a file is missing, or the labels differ.
    """
    for name in _REQUIRED:
        if not (path / name).is_file():
            raise InputError(
                f"{str(path)!r}: {name} is missing: no model that finsent trained or adopted. "
                "Name another model."
            )
    config = ModelConfigFile.read(path / CONFIG)
    label_map = read_label_map(path)
    if label_map is None:
        check_labels(config.id2label or {}, str(path / CONFIG))
    return label_map


def fingerprint(model_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that decides a model's answers, by file name."""
    paths = [path for name in _ANSWER_FILES if (path := model_dir / name).is_file()]
    return {path.name: sha256_file(path) for path in paths}
