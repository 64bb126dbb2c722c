"""Promote a version behind its gates, at once or by a canary, and roll back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from finsent.errors import InputError
from finsent.registry.calibration_lookup import warn_of_lost_calibrations
from finsent.rollout.config import PromoteConfig
from finsent.rollout.gate_report import GateReport, GateResult
from finsent.rollout.rollout_record import RolloutRules
from finsent.rollout.rollouts import Rollouts

if TYPE_CHECKING:
    from finsent.rollout.gates import Promotion  # imports scikit-learn


@dataclass(frozen=True)
class PromotionResult:
    """Result of the job `promote`."""

    model_version: str
    alias: str
    replaced: Annotated[str | None, "version that had the alias; null: none"]
    gates: Annotated[list[GateResult], "gate, outcome, reason"]
    rollout: Annotated[str | None, "id of the canary; null: the alias moved at once"]
    share: Annotated[float, "of the requests that the version gets now"]


@dataclass(frozen=True)
class RefusedPromotion:
    """Result of a promotion that gates refused."""

    model_version: str
    alias: str
    gates: list[GateResult]


def refusal(promotion: Promotion, report: GateReport) -> str | None:
    """Return why a version does not get the alias; None: the gates permit it."""
    if report.clearance is not None and (promotion.rules.force or not report.refusals):
        return None
    reasons = "; ".join(f"{result.gate}: {result.reason.rstrip('.')}" for result in report.refusals)
    return (
        f"promote {promotion.candidate.version}: refused by {reasons}. Keep the current version, "
        "or set publish.force=true."
    )


def promote(promotion: Promotion, rollouts: Rollouts, report: GateReport) -> PromotionResult:
    """Give a version the alias, or start its canary. The gates have permitted it.

    Raises:
        InputError: a canary is open, no version has the alias, or the alias has moved.
    """
    config, current = promotion.config, promotion.current
    alias, version = config.alias, promotion.candidate.version
    replaced = current.version if current else None
    warn_of_lost_calibrations(rollouts.registry, alias, version)
    result = PromotionResult(version, alias, replaced, report.results, None, 1.0)
    if config.canary:
        gate = report.clearance.gate if report.clearance else None
        record = rollouts.start(alias, _required(alias, replaced), version, gate, _rules(config))
        record = rollouts.settle(record)
        return replace(result, rollout=record.id, share=record.share)
    rollouts.registry.promote(f"version:{version}", alias, report.clearance)
    reason = ", ".join(f"{gate.gate}: {gate.outcome}" for gate in report.results)
    rollouts.record_move(alias, replaced, version, "promote", reason)
    return result


def _required(alias: str, current: str | None) -> str:
    """Return the version that has the alias.

    Raises:
        InputError: no version has the alias.
    """
    if current is None:
        raise InputError(
            f"promote.canary=true: no version has the alias {alias!r}, so there is nothing to "
            "compare with. Set promote.canary=false."
        )
    return current


@dataclass(frozen=True)
class RolledBack:
    """Result of the job `rollback`."""

    alias: str
    model_version: Annotated[str, "that has the alias now"]
    instead_of: Annotated[str | None, "version that had the alias, or got a part of the requests"]
    rollout: Annotated[str | None, "id of the canary that ended; null: the alias moved"]


def roll_back(rollouts: Rollouts, alias: str) -> RolledBack:
    """End the alias's canary, or else point the alias at its previous version.

    Raises:
        InputError: the alias is unknown or has no earlier version.
    """
    reason = "by finsent rollback"
    record = rollouts.get(alias)
    if record is not None and record.is_open:
        ended = rollouts.end(record, "roll back", "rolled back", reason)
        # A process that promotes the candidate at this moment may have moved the alias.
        has_moved = rollouts.registry.aliases().get(alias) == ended.candidate
        if not has_moved:
            return RolledBack(alias, ended.champion, ended.candidate, ended.id)
    replaced = rollouts.registry.aliases().get(alias)
    version = rollouts.registry.rollback(alias).version
    rollouts.record_move(alias, replaced, version, "roll back", reason)
    return RolledBack(alias, version, replaced, None)


def _rules(config: PromoteConfig) -> RolloutRules:
    return RolloutRules(
        shares=tuple(stage / 100 for stage in config.stages),
        margin=config.margin,
        allowed_disagreement=config.allowed_disagreement,
        alpha=config.alpha,
        slow_factor=config.slow_factor,
        compare_share=config.compare_share,
    )
