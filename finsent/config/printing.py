"""Settings as YAML that loads unchanged."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml
from omegaconf import OmegaConf

from finsent.config.section import FOR_RECORDS, Section


class _Dumper(yaml.SafeDumper):
    """Quotes each string that OmegaConf reads as another type."""


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    escaped = value.replace("${", "\\${")
    parsed = OmegaConf.create(f"x: {value}") if re.fullmatch(r"[\w.+-]+", value) else None
    style = '"' if parsed is not None and not isinstance(parsed.x, str) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", escaped, style=style)


_Dumper.add_representer(str, _represent_str)


def to_yaml(config: Section, sections: Sequence[str] | None = None) -> str:
    """Return settings, or some of their sections, as YAML that a job loads; no passwords."""
    include = set(sections) if sections else None
    values = config.model_dump(mode="json", include=include, context=FOR_RECORDS)
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
