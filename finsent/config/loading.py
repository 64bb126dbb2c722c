"""Settings from YAML files and `key=value` overrides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from finsent.config.keys import walk_fields
from finsent.config.messages import describe
from finsent.config.section import Section
from finsent.config.yaml_files import read_file, read_override
from finsent.errors import ConfigError, first_line

T = TypeVar("T", bound=Section)


def load(
    schema: type[T],
    files: Sequence[Path | str],
    overrides: Sequence[str],
    ignored: Collection[str] = (),
) -> T:
    """Merge YAML files from left to right, then `key=value` overrides, and check the result.

    Args:
        ignored: sections of other packages, which the files may have. They are dropped unchecked.

    Raises:
        ConfigError: a file is missing or not YAML, or a key or value is wrong. One line that names
            the field, the value and the remedy.
    """
    fields = dict(walk_fields(schema))
    try:
        layers = [read_file(Path(file)) for file in files]
        layers += [read_override(override, fields) for override in overrides]
        merged: Any = OmegaConf.create({})
        for layer in layers:
            merged = _merge(merged, layer, schema)
        values: Any = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        problem = first_line(error)
        raise ConfigError(
            f"{key}: {problem}. Correct it, or write \\${{ where no reference is intended."
        ) from None
    return check(schema, {key: value for key, value in values.items() if key not in ignored})


def _merge(merged: Any, layer: Any, schema: type[T]) -> Any:
    try:
        return OmegaConf.merge(merged, layer)
    except TypeError:  # a section met a list: the layer by itself is wrong, and its key is named
        check(schema, OmegaConf.to_container(layer))
        raise


def check(schema: type[T], values: Any) -> T:
    """Check plain values.

    Raises:
        ConfigError: a key or value is wrong. One line, as of `load`.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, schema)) from None
