"""Financial sentiment: from a raw labeled file to a published model.

The names below are what a notebook or a program needs:

    import finsent

    engine = finsent.load("alias:champion")
    engine.classify(["Operating profit rose to 3 million."])[0].label

Each name is imported at its first use. `Client` needs no Ray and no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finsent.client import AsyncClient, Client
    from finsent.data.versions.dataset import DatasetVersion
    from finsent.inference.engine import Engine
    from finsent.registry.loading import load
    from finsent.registry.registry import Registry

__all__ = ["AsyncClient", "Client", "DatasetVersion", "Engine", "Registry", "load"]

_MODULES = {
    "AsyncClient": "finsent.client",
    "Client": "finsent.client",
    "DatasetVersion": "finsent.data.versions.dataset",
    "Engine": "finsent.inference.engine",
    "Registry": "finsent.registry.registry",
    "load": "finsent.registry.loading",
}


def __getattr__(name: str) -> Any:
    # A service or a worker imports modules of finsent and must not pay for all of them.
    if name not in _MODULES:
        raise AttributeError(f"module 'finsent' has no attribute {name!r}")
    try:
        module = importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        raise ImportError(
            f"finsent.{name}: needs the package {error.name}. Run pip install 'finsent[platform]'."
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
