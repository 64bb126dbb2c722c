"""Check the files of a model's directory before they are loaded.

Reads only the beginning of each file. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finsent.errors import InputError

SENTENCEPIECE = ("spiece.model", "spm.model", "sentencepiece.bpe.model")
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", *SENTENCEPIECE)

_ADAPTER = "adapter_config.json"
_LFS_POINTER = b"version https://git-lfs"
_PYTORCH_MAGIC = (b"PK", b"\x80")  # a zip archive; the older form is a bare pickle
_FLOATS = ("F64", "F32", "F16", "BF16")
_PARAMETER_SUFFIXES = (".weight", ".bias", ".gamma", ".beta")
_TRAINER_STATES = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
# Weights in other formats, by file pattern, and how to convert them to safetensors.
_SAVE = "Save the model with its save_pretrained."
_OTHER_FORMATS = {
    "tf_model.h5": f"of TensorFlow. Load it with transformers 4 (from_tf=True). {_SAVE}",
    "flax_model.msgpack": f"of Flax. Load it with transformers 4 (from_flax=True). {_SAVE}",
    "**/*.onnx": "ONNX, which cannot be loaded back. Get the weights that it was exported from.",
    "**/*.gguf": "GGUF. Get the weights that it was converted from.",
    "*.safetensors": "of another name. Rename it if it holds all weights.",
    "*.bin": "of another name. Rename it to pytorch_model.bin if it holds all weights.",
    "*.pt": f"of PyTorch, in no fixed layout. {_SAVE}",
    "*.ckpt": f"a training checkpoint. {_SAVE}",
    "*.pth": f"of PyTorch, in no fixed layout. {_SAVE}",
}


def weight_file(folder: Path) -> str | None:
    """Return the file name of a directory's weights or of their index, safetensors first."""
    names = (*_SAFETENSORS, *_PICKLED)
    return next((name for name in names if (folder / name).is_file()), None)


def check_model_files(path: Path, name: str) -> bool:
    """Refuse a directory that is not a complete model in Hugging Face layout.

    Args:
        name: the model in messages, as `FIELD=VALUE`.

    Returns:
        Whether the weights are in a `.bin` file.

    Raises:
        InputError: a file is missing, or not what its name says.
    """
    weights = weight_file(path)
    problem = _adapter_problem(path) or _missing_problem(path, weights)
    if problem is None and weights is not None:
        files = list(_shards(path, weights))
        problem = _pointer_problem(path, files) or _weights_problem(files, weights)
    if problem:
        raise InputError(f"{name}: {problem}")
    return weights in _PICKLED


def _adapter_problem(path: Path) -> str | None:
    if not (path / _ADAPTER).is_file():
        return None
    return (
        f"{_ADAPTER}: the directory holds an adapter of PEFT, without the model that it changes. "
        "Merge the two (AutoPeftModelForSequenceClassification.from_pretrained, merge_and_unload, "
        f"save_pretrained), or delete {_ADAPTER} if the weights are merged already."
    )


def _missing_problem(path: Path, weights: str | None) -> str | None:
    exists = {
        "config.json": (path / "config.json").is_file(),
        "model.safetensors": weights is not None,
        # transformers converts the other files to a fast tokenizer.
        "tokenizer.json": any((path / file).is_file() for file in _TOKENIZERS),
    }
    missing = [file for file, is_present in exists.items() if not is_present]
    if not missing:
        return None
    listed = f"{', '.join(missing)} missing"
    inner = _inner_models(path) if "config.json" in missing else []
    if inner:
        folders = ", ".join(repr(str(folder)) for folder in inner[:3])
        return f"{listed}; the directory contains a model in {folders}. Name that directory."
    if missing == ["model.safetensors"]:
        for pattern, remedy in _OTHER_FORMATS.items():
            matches = sorted(path.glob(pattern))
            file = next((f for f in matches if not f.name.startswith(_TRAINER_STATES)), None)
            if file is not None:
                return f"{listed}; {file.relative_to(path)} is {remedy}"
    return (
        f"{listed}. Name a folder in Hugging Face layout with safetensors weights and a fast "
        "tokenizer (AutoModel and AutoTokenizer write them: save_pretrained)."
    )


def _inner_models(path: Path) -> list[Path]:
    """Return complete models in a directory, such as the snapshots of a hub cache."""
    folders = (
        file.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/config.json")
    )
    return sorted(folder for folder in folders if weight_file(folder) is not None)


def _pointer_problem(path: Path, weights: list[Path]) -> str | None:
    tokenizer = next(path / name for name in _TOKENIZERS if (path / name).is_file())
    for file in (path / "config.json", tokenizer, *weights):
        if file.is_file() and _read_start(file, len(_LFS_POINTER)) == _LFS_POINTER:
            return (
                f"{file.name} is a pointer of Git LFS, not the file. Run `git lfs pull` where the "
                "directory was cloned, or download the files again."
            )
    return None


def _weights_problem(files: list[Path], weights: str) -> str | None:
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        return (
            f"of the {len(files)} files that {weights} names, {', '.join(missing[:3])} missing. "
            "Download the files again."
        )
    for file in files:
        if weights in _PICKLED:
            if not _read_start(file, 2).startswith(_PYTORCH_MAGIC):
                return f"{file.name} is not a file of PyTorch. Download it again."
            continue
        for key, dtype in _dtypes(file).items():
            if dtype not in _FLOATS and key.endswith(_PARAMETER_SUFFIXES):
                return (
                    f"{file.name} holds {key} in {dtype}: quantized weights, which mean nothing "
                    "without their scales. Use a copy in fp32, fp16 or bf16."
                )
    return None


def _shards(path: Path, weights: str) -> Iterator[Path]:
    """Yield the files of the weights; none where the index is damaged."""
    if not weights.endswith(".index.json"):
        yield path / weights
        return
    try:
        shards = json.loads((path / weights).read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in shards.values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # transformers reports what is wrong with the index
    for name in names:
        yield path / name


def _dtypes(file: Path) -> dict[str, str]:
    """Return the type of each tensor of a safetensors file; empty where the header is damaged."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > file.stat().st_size:
                return {}
            header: Any = json.loads(stream.read(size))
        return {key: str(entry["dtype"]) for key, entry in header.items() if key[:2] != "__"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _read_start(file: Path, size: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(size)
