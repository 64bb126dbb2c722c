"""The model that a setting names: a run, an alias, a version or a directory."""

from __future__ import annotations

from pathlib import Path

from finsent.errors import InputError
from finsent.references import ALIAS, PATH, RUN, VERSION, only_match, parse
from finsent.registry.registry import Registry
from finsent.runs import model_matches, not_a_model


def find_any_model(reference: str, registry: Registry, runs_dir: Path, field: str) -> Path:
    """Return the directory of a run's model, or of a published version (verified).

    Args:
        reference: `run:NAME`, `alias:NAME`, `version:ID`, `latest`, a directory, or a bare name
            that is one of these.
        field: that holds the reference, for messages.

    Raises:
        InputError: there is no such model, it is damaged, or the reference names two.
    """
    parsed = parse(reference, field, (RUN, ALIAS, VERSION, PATH))
    published = registry.matches(parsed)
    matches = {
        **{name: registry.version_dir(version) for name, version in published.items()},
        **model_matches(parsed, runs_dir),
    }
    found = only_match(reference, field, matches)
    if found is None:
        known = ", ".join(sorted({v.version for v in registry.versions()} | {*registry.aliases()}))
        raise InputError(
            f"{not_a_model(reference, runs_dir, field)}; "
            f"published in {str(registry.root)!r}: {known or 'none'}"
        )
    version = registry.version_at(found)  # a path may name one, too
    return found if version is None else registry.get(f"{VERSION}:{version}", field).path
