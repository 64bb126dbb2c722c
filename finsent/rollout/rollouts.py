"""The rollouts of a storage root: one open rollout per alias, changed by conditional writes.

Each process that serves reports its outcomes here. The process whose report completes the evidence
makes the decision. Decisions are stored with the record first, and then copied to the audit log:
any process copies what one that died has left.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from finsent.errors import InputError
from finsent.hash_chain import START
from finsent.registry.gate import Clearance, Gate
from finsent.registry.registry import Registry
from finsent.rollout import decisions
from finsent.rollout.audit import AuditEntry, AuditLog
from finsent.rollout.outcomes import Outcomes
from finsent.rollout.rollout_record import (
    Action,
    RolloutDecision,
    RolloutRecord,
    RolloutRules,
    RolloutTotals,
    Status,
)
from finsent.rollout.state_file import StateFile
from finsent.storage import Location

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rollouts:
    """The rollouts and the audit log below a storage root."""

    root: Location
    registry: Registry

    @property
    def audit(self) -> AuditLog:
        """The audit log."""
        return AuditLog(self.root)

    def get(self, alias: str) -> RolloutRecord | None:
        """Return the latest rollout of an alias; None: there was none.

        Raises:
            InputError: the record is damaged.
        """
        return self._file(alias).get()

    def check_closed(self, alias: str) -> None:
        """Check that no rollout of an alias is open.

        Raises:
            InputError: one is open, or the record is damaged.
        """
        _check_closed(self.get(alias))

    def start(
        self, alias: str, champion: str, candidate: str, gate: Gate | None, rules: RolloutRules
    ) -> RolloutRecord:
        """Start a rollout.

        Args:
            champion: version that has the alias.
            candidate: version that gets a share of the requests.
            gate: that the candidate passed; None: no comparison was needed.

        Raises:
            InputError: a rollout of the alias is open.
        """
        new = RolloutRecord(
            id=uuid.uuid4().hex[:16],
            alias=alias,
            champion=champion,
            candidate=candidate,
            gate=gate,
            rules=rules,
        )

        def plan(old: RolloutRecord | None) -> RolloutRecord:
            _check_closed(old)
            return decisions.begin(new, _now())

        return self._change(alias, plan)

    def report(self, alias: str, rollout: str, outcomes: Outcomes) -> RolloutRecord | None:
        """Add outcomes to a rollout, and return the alias's latest rollout after the decision.

        Args:
            rollout: id of the rollout that the outcomes belong to.
        """
        if not (outcomes.blocks or outcomes.disagreements):
            return self.get(alias)

        def plan(old: RolloutRecord | None) -> RolloutRecord | None:
            if old is None or old.id != rollout or old.status != "running":
                return old
            return decisions.judge(old, outcomes, _now())

        return self._file(alias).change(plan)

    def settle(self, record: RolloutRecord) -> RolloutRecord:
        """Carry out what a rollout has decided: move the alias, and write the audit log.

        Does nothing where another process has done so.
        """
        if record.status == "running":
            current = self.registry.aliases().get(record.alias)
            if current != record.champion:
                reason = f"the alias moved to {current or 'no version'} meanwhile"
                record = self.end(record, "stop", "stopped", reason)
        if record.status == "promoting":
            record = self._promote(record)
        return self._audit(record)

    def end(
        self, record: RolloutRecord, action: Action, status: Status, reason: str
    ) -> RolloutRecord:
        """End a rollout for another reason than its outcomes, unless it has ended."""

        def plan(old: RolloutRecord | None) -> RolloutRecord | None:
            if old is None or old.id != record.id or not old.is_open:
                return old
            return decisions.end(old, action, status, reason, _now())

        return self._audit(self._change(record.alias, plan))

    def record_move(
        self, alias: str, champion: str | None, candidate: str, action: Action, reason: str
    ) -> AuditEntry:
        """Write a change of an alias that no canary decided to the audit log.

        Args:
            champion: version that had the alias; None: no version.
            candidate: version that has the alias now.
        """
        decision = RolloutDecision(
            number=1,
            at=_now(),
            action=action,
            share=1.0,
            reason=reason,
            totals=RolloutTotals(),
            evidence={},
            worse_wealth=1.0,
            safe_wealth=1.0,
        )
        return self.audit.append(_entry(alias, None, champion, candidate, decision))

    def _promote(self, record: RolloutRecord) -> RolloutRecord:
        """Point the alias at the candidate, and close the rollout."""
        clearance = Clearance(record.champion, record.gate)
        try:
            self.registry.promote(f"version:{record.candidate}", record.alias, clearance)
        except InputError as error:
            return self.end(record, "stop", "stopped", str(error))

        def plan(old: RolloutRecord | None) -> RolloutRecord | None:
            if old is None or old.id != record.id or old.status != "promoting":
                return old
            return old.replaced(status="promoted")

        return self._change(record.alias, plan)

    def _audit(self, record: RolloutRecord) -> RolloutRecord:
        """Copy decisions that the audit log lacks."""
        for decision in record.decisions[record.audited :]:
            entry = _entry(record.alias, record.id, record.champion, record.candidate, decision)
            self.audit.append(entry)
            log.info(
                "rollout %s of %s: %s: %s",
                record.id,
                record.candidate,
                decision.action,
                decision.reason,
            )
        count = len(record.decisions)
        if record.audited == count:
            return record

        def plan(old: RolloutRecord | None) -> RolloutRecord | None:
            if old is None or old.id != record.id or old.audited >= count:
                return old
            return old.replaced(audited=count)

        return self._change(record.alias, plan)

    def _change(
        self, alias: str, plan: Callable[[RolloutRecord | None], RolloutRecord | None]
    ) -> RolloutRecord:
        record = self._file(alias).change(plan)
        assert record is not None  # `plan` gets a record, or makes one
        return record

    def _file(self, alias: str) -> StateFile[RolloutRecord]:
        return StateFile(self.root / "rollouts", f"{alias}.json", RolloutRecord)


def _check_closed(record: RolloutRecord | None) -> None:
    if record is not None and record.is_open:
        raise InputError(
            f"promote.alias={record.alias!r}: a canary of {record.candidate} gets "
            f"{record.share:.0%} of the requests. Wait for its end, or run `finsent rollback`."
        )


def _entry(
    alias: str,
    rollout: str | None,
    champion: str | None,
    candidate: str,
    decision: RolloutDecision,
) -> AuditEntry:
    return AuditEntry(
        number=0,
        link=START,
        alias=alias,
        rollout=rollout,
        champion=champion,
        candidate=candidate,
        decision=decision,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
