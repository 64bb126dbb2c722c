"""Typed, closed settings: YAML files, then `key=value` overrides, checked by Pydantic.

The section of a component is next to the component (`*/config.py`). Its fields are the only place
of defaults. `finsent.settings`, `tune.settings` and `serve_app.settings` compose the sections that
a package uses, and `ray_jobs._settings` composes all of them.
"""

from finsent.config.help import help_lines
from finsent.config.loading import check, load
from finsent.config.printing import to_yaml
from finsent.config.section import FOR_RECORDS, Section, local_dir, setting
from finsent.config.yaml_files import duplicate_key

__all__ = [
    "FOR_RECORDS",
    "Section",
    "check",
    "duplicate_key",
    "help_lines",
    "load",
    "local_dir",
    "setting",
    "to_yaml",
]
