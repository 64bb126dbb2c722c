"""List and show published models, and move aliases between them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.table import Table

from finsent.errors import ConfigError, InputError
from finsent.evaluation.domain_report import summary
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.registry.aliases import check_alias
from finsent.registry.calibration_lookup import warn_of_lost_calibrations
from finsent.registry.calibrations import Calibrations
from finsent.registry.registry import Registry
from finsent.registry.results import (
    DamagedVersion,
    ListedVersion,
    Listing,
    PromoteResult,
    RollbackResult,
    ShowResult,
    version_keys,
)
from ray_jobs._cli import Call, Job, Output, main, table_console

_USAGE = "list | show MODEL | promote MODEL ALIAS | rollback ALIAS"
_ARGUMENT_COUNTS = {"list": 0, "show": 1, "promote": 2, "rollback": 1}


def run(call: Call) -> Output:
    """Run the job."""
    action, *names = call.arguments or ["list"]
    if _ARGUMENT_COUNTS.get(action) != len(names):
        raise ConfigError(
            f"registry {' '.join(call.arguments)!r}: unknown arguments. Write {_USAGE}."
        )
    registry = Registry(call.settings.workspace.registry)
    if action == "show":
        return _show(registry, names[0])
    if action == "promote":
        return _promote(call, registry, *names)
    if action == "rollback":
        return RollbackResult(**version_keys(registry.rollback(names[0])), alias=names[0])
    return _list(registry)


def _show(registry: Registry, reference: str) -> ShowResult:
    version = registry.get(reference)
    calibrations = Calibrations(registry.location, version.version)
    return ShowResult(
        **version_keys(version),
        manifest=version.manifest,
        gates=registry.gates(version.version),
        calibrations=[
            summary(calibrations.get(name, "registry show")) for name in calibrations.names()
        ],
    )


def _promote(call: Call, registry: Registry, reference: str, alias: str) -> PromoteResult:
    # scikit-learn, SciPy and tokenizers: two seconds that `finsent --help` does without.
    from finsent.judging.champion_gate import check_gate

    check_alias(alias)  # before the comparison, which takes long
    candidate = registry.get(reference)
    with tempfile.TemporaryDirectory() as out:
        rows = candidate.manifest.metrics.rows
        comparison = Path(out) / "comparison"
        setup, rules = EvaluationSetup.of(call.settings), call.settings.publish
        clearance = check_gate(setup, rules, candidate.path, alias, comparison, rows)
    warn_of_lost_calibrations(registry, alias, candidate.version)
    promoted = registry.promote(candidate.version, alias, clearance)
    gate = clearance.gate if clearance else None
    return PromoteResult(**version_keys(promoted), alias=alias, gate=gate)


def _list(registry: Registry) -> Listing:
    aliases = registry.aliases()
    table = Table(
        "version", "aliases", "created", "macro-F1", "dataset", "backbone", "calibrations"
    )
    models: list[ListedVersion | DamagedVersion] = []
    for version in registry.versions():
        names = [alias for alias, target in aliases.items() if target == version.version]
        try:
            keys = version_keys(version)
        except InputError:
            table.add_row(version.version, "damaged")
            models.append(DamagedVersion(version.version))
            continue
        calibrations = Calibrations(registry.location, version.version).names()
        gates = {
            alias: gate.brief() if gate else None
            for alias, gate in registry.gates(version.version).items()
        }
        models.append(ListedVersion(**keys, aliases=names, gates=gates, calibrations=calibrations))
        macro_f1 = keys["macro_f1"]
        table.add_row(
            version.version,
            ", ".join(names),
            keys["created"][:10],
            "-" if macro_f1 is None else f"{macro_f1:.3f}",
            str(keys["dataset_version"] or "-"),
            str(keys["backbone"]),
            ", ".join(calibrations),
        )
    table_console().print(table)
    return Listing(str(registry.location), aliases, models)


JOB = Job(
    name="registry",
    summary="list: the published models. show MODEL: verify a model and print its manifest.\n"
    "promote MODEL ALIAS: point an alias at a model. A model that is to be `champion` is first "
    "compared with the present champion, as by `ray_jobs.publish`, and refused unless it is shown "
    "not to be inferior, or publish.force=true.\n"
    "rollback ALIAS: point an alias at the version before, without a comparison.\n"
    "MODEL is version:ID, alias:NAME, or a bare name that is one of them.",
    result={
        "": Listing,
        "show": ShowResult,
        "promote": PromoteResult,
        "rollback": RollbackResult,
    },
    sections=("registry", "publish", "evaluate", "engine", "storage"),
    run=run,
    keeps_run=False,
    arguments=_USAGE,
)

if __name__ == "__main__":
    main(JOB)
