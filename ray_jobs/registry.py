"""Look at published models, and move aliases between them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.table import Table

from finsent.errors import ConfigError, InputError
from finsent.evaluation.domain_report import summary
from finsent.evaluation.setup import EvaluationSetup
from finsent.registry.aliases import check_alias
from finsent.registry.calibrations import Calibrations
from finsent.registry.choose_calibration import warn_of_lost_calibrations
from finsent.registry.gate import brief_gate
from finsent.registry.registry import ModelVersion, Registry
from ray_jobs._cli import Call, Job, Result, main, table_console

_USAGE = "list | show MODEL | promote MODEL ALIAS | rollback ALIAS"
_ARGUMENTS = {"list": 0, "show": 1, "promote": 2, "rollback": 1}


def run(call: Call) -> Result:
    """The job."""
    action, *names = call.arguments or ["list"]
    if _ARGUMENTS.get(action) != len(names):
        raise ConfigError(f"registry {' '.join(call.arguments)!r}: write {_USAGE}")
    registry = Registry(call.settings.registry_dir)
    if action == "show":
        version = registry.get(names[0])
        return {
            "manifest": version.manifest,
            "gates": registry.gates(version.version),
            "calibrations": _calibrations(registry, version),
            **_summary(version),
        }
    if action == "promote":
        return _promote(call, registry, *names)
    if action == "rollback":
        return {"alias": names[0], **_summary(registry.rollback(names[0]))}
    return _list(registry)


def _calibrations(registry: Registry, version: ModelVersion) -> list[Result]:
    found = Calibrations(registry.root, version.version)
    return [summary(found.get(name, "registry show")) for name in found.names()]


def _promote(call: Call, registry: Registry, reference: str, alias: str) -> Result:
    # scikit-learn, SciPy and tokenizers: two seconds that `finsent --help` does without.
    from finsent.registry.champion import check_gate

    check_alias(alias)  # before the comparison, which takes long
    candidate = registry.get(reference)
    with tempfile.TemporaryDirectory() as out:
        rows = candidate.manifest["metrics"].get("rows")
        comparison = Path(out) / "comparison"
        setup, rules = EvaluationSetup.of(call.settings), call.settings.publish
        clearance = check_gate(setup, rules, candidate.path, alias, comparison, rows)
    warn_of_lost_calibrations(registry, alias, candidate.version)
    gate = clearance.gate if clearance else None
    promoted = registry.promote(candidate.version, alias, clearance)
    return {"alias": alias, "gate": gate.as_json() if gate else None, **_summary(promoted)}


def _list(registry: Registry) -> Result:
    aliases = registry.aliases()
    table = Table(
        "version", "aliases", "created", "macro-F1", "dataset", "backbone", "calibrations"
    )
    models = []
    for version in registry.versions():
        names = [alias for alias, target in aliases.items() if target == version.version]
        try:
            figures = _summary(version)
        except (InputError, KeyError, TypeError, AttributeError):
            table.add_row(version.version, "damaged")
            models.append({"model_version": version.version, "damaged": True})
            continue
        calibrations = Calibrations(registry.root, version.version)
        gates = {alias: brief_gate(gate) for alias, gate in registry.gates(version.version).items()}
        models.append(
            figures | {"aliases": names, "gates": gates, "calibrations": calibrations.names()}
        )
        macro_f1 = figures["macro_f1"]
        table.add_row(
            version.version,
            ", ".join(names),
            figures["created"][:10],
            "-" if macro_f1 is None else f"{macro_f1:.3f}",
            str(figures["dataset_version"] or "-"),
            str(figures["backbone"]),
            ", ".join(calibrations.names()),
        )
    table_console().print(table)
    return {"root": str(registry.root), "aliases": aliases, "models": models}


def _figures(manifest: Result) -> Result:
    """Return macro-F1 and accuracy; None where a model was adopted and not measured."""
    metrics = manifest["metrics"]
    if manifest.get("origin") and not metrics:
        return {"macro_f1": None, "accuracy": None}
    return {key: metrics[key] for key in ("macro_f1", "accuracy")}


def _summary(version: ModelVersion) -> Result:
    manifest = version.manifest
    return {
        "model_version": version.version,
        "version_dir": str(version.path),
        "created": manifest["created"],
        **_figures(manifest),
        "dataset_version": (manifest["dataset"] or {}).get("version"),
        "backbone": manifest.get("backbone"),
    }


JOB = Job(
    name="registry",
    summary="list: the published models. show MODEL: verify one and print its manifest.\n"
    "promote MODEL ALIAS: point an alias at a model; what is to be `champion` is first compared "
    "with the present one, as by `ray_jobs.publish`, and refused unless it is shown not to be "
    "inferior, or publish.force=true. rollback ALIAS: point it at the one before, without a "
    "comparison.\n"
    "MODEL is version:ID, alias:NAME, or a bare name that is one of them.",
    result="list: root, aliases, models; else model_version, version_dir, created, macro_f1, "
    "accuracy, dataset_version, backbone, with alias (and gate, of promote) or manifest, gates "
    "(by alias, of the step that pointed it at the version) and calibrations; seconds",
    sections=("registry", "publish", "evaluate", "engine", "storage"),
    run=run,
    keeps_run=False,
    arguments=_USAGE,
)

if __name__ == "__main__":
    main(JOB)
