"""Schemas of KubeRay's kinds: reduce the CustomResourceDefinitions, and validate against them.

`python -m tests.kuberay DIRECTORY` writes `tests/data/kuberay.json` from the files ray.io_*.yaml of
KubeRay's directory helm-chart/kuberay-operator/crds. Descriptions and `status` are left out, and
equal parts are stored once.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SCHEMAS = Path(__file__).parent / "data" / "kuberay.json"
VERSION = "v1"  # of the API
_MIN_SHARED_CHARACTERS = 120
_NESTED = ("items", "additionalProperties")


def main(directory: Path) -> None:
    """Write `SCHEMAS` from a directory of CustomResourceDefinitions."""
    shared: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    for path in sorted(directory.glob("ray.io_*.yaml")):
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        [schema] = [
            version["schema"]["openAPIV3Schema"]
            for version in definition["versions"]
            if version["name"] == VERSION
        ]
        del schema["properties"]["status"]
        kinds[definition["names"]["kind"]] = _reduce(schema, shared)
    text = json.dumps({"$defs": shared, **kinds}, sort_keys=True, separators=(",", ":"))
    SCHEMAS.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")


def problems(manifest: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a manifest; unknown fields are."""
    schemas = json.loads(SCHEMAS.read_text(encoding="utf-8"))
    definitions = {name: _close(schema) for name, schema in schemas["$defs"].items()}
    schema = {"$defs": definitions, **_close(schemas[manifest["kind"]])}
    for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest):
        yield f"{error.json_path}: {error.message}"


def _reduce(schema: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without descriptions whose large parts are references to `shared`."""
    reduced = {key: value for key, value in schema.items() if key != "description"}
    if "properties" in schema:
        reduced["properties"] = {
            name: _reduce(property_schema, shared)
            for name, property_schema in schema["properties"].items()
        }
    for key in _NESTED:
        if isinstance(schema.get(key), dict):
            reduced[key] = _reduce(schema[key], shared)
    text = json.dumps(reduced, sort_keys=True)
    if len(text) < _MIN_SHARED_CHARACTERS:
        return reduced
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    shared[name] = reduced
    return {"$ref": f"#/$defs/{name}"}


def _close(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose objects refuse fields that it does not name."""
    closed = dict(schema)
    if "properties" in schema:
        closed["properties"] = {
            name: _close(property_schema) for name, property_schema in schema["properties"].items()
        }
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    for key in _NESTED:
        if isinstance(schema.get(key), dict):
            closed[key] = _close(schema[key])
    return closed


if __name__ == "__main__":
    main(Path(sys.argv[1]))
