"""The names that `import finsent` offers."""

from __future__ import annotations

import importlib
import sys

import pytest

import finsent


@pytest.mark.cost(1, "imports the engine and the registry")
def test_each_name_is_the_object_of_its_module() -> None:
    assert set(finsent.__all__) == finsent._MODULES.keys() <= set(dir(finsent))
    for name, module in finsent._MODULES.items():
        assert getattr(finsent, name) is getattr(importlib.import_module(module), name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'finsent' has no attribute 'Engines'"):
        _ = finsent.Engines


def test_name_that_the_client_alone_lacks_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "finsent.data.versions.dataset")
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    with pytest.raises(ImportError) as caught:
        _ = finsent.DatasetVersion
    assert str(caught.value) == (
        "finsent.DatasetVersion: needs the package pyarrow. Run pip install 'finsent[platform]'."
    )
