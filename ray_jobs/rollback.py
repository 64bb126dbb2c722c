"""End a canary, or point an alias at its previous version."""

from __future__ import annotations

from finsent.errors import ConfigError
from finsent.registry.registry import Registry
from finsent.rollout.promotion import RolledBack, roll_back
from finsent.rollout.rollouts import Rollouts
from ray_jobs._cli import Call, Job, main


def run(call: Call) -> RolledBack:
    """Roll the alias back."""
    settings, names = call.settings, call.arguments
    if len(names) > 1:
        raise ConfigError(f"rollback {' '.join(names)!r}: not one alias. Name one, or none.")
    rollouts = Rollouts(settings.workspace.root, Registry(settings.workspace.registry))
    return roll_back(rollouts, *(names or [settings.promote.alias]))


JOB = Job(
    name="rollback",
    summary="End the canary of an alias. Without a canary, point the alias at the version before, "
    "without a comparison. The default of ALIAS is promote.alias. Services follow within "
    "serve.watch_seconds.",
    result=RolledBack,
    sections=("promote", "registry", "storage"),
    run=run,
    keeps_run=False,
    arguments="[ALIAS]",
    home="promote",
)

if __name__ == "__main__":
    main(JOB)
