"""Give a published model an alias behind all gates, at once or by a canary."""

from __future__ import annotations

from rich.table import Table

from finsent.errors import ConfigError
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.rollout.promotion import PromotionResult, RefusedPromotion, promote, refusal
from finsent.rollout.rollouts import Rollouts
from ray_jobs._cli import Call, Job, RefusedError, main, table_console

_USAGE = "MODEL"


def run(call: Call) -> PromotionResult:
    """Run the gates, show their outcomes, and move the alias or start the canary."""
    # scikit-learn, SciPy and tokenizers: two seconds that `finsent --help` does without.
    from finsent.rollout.gates import Promotion

    settings, names = call.settings, call.arguments
    if len(names) != 1:
        raise ConfigError(f"promote {' '.join(names)!r}: not one model. Write promote {_USAGE}.")
    setup = EvaluationSetup.of(settings)
    rollouts = Rollouts(settings.workspace.root, setup.registry)
    rollouts.check_closed(settings.promote.alias)
    promotion = Promotion.find(setup, settings.publish, settings.promote, names[0])
    report = promotion.run_gates(call.run_dir / "comparison")
    table = Table("gate", "outcome", "reason")
    for result in report.results:
        table.add_row(result.gate, result.outcome, result.reason)
    table_console().print(table)
    if reason := refusal(promotion, report):
        alias, version = settings.promote.alias, promotion.candidate.version
        raise RefusedError(reason, RefusedPromotion(version, alias, report.results))
    return promote(promotion, rollouts, report)


JOB = Job(
    name="promote",
    summary="Point promote.alias at a published model if all gates permit: the comparison with the "
    "champion on held-out rows, the behavior suite, the parity of the service's backend, and the "
    "verdict of a shadow, if there is one. With promote.canary=true, the running service sends the "
    "model growing shares of the requests, and the alias moves after the last stage; a worse model "
    "is rolled back. Services follow within serve.watch_seconds. MODEL is version:ID, alias:NAME, "
    "or a bare name that is one of them.",
    result=PromotionResult,
    sections=("promote", "publish", "evaluate", "engine", "data", "registry", "storage", "run"),
    run=run,
    arguments=_USAGE,
    home="promote",
)

if __name__ == "__main__":
    main(JOB)
