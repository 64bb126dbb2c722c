"""The gates of a promotion: offline comparison, behavior suite, parity of the backend, shadow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finsent.errors import InputError
from finsent.evaluation.behavior.run import run_suite
from finsent.evaluation.behavior.suite import Suite
from finsent.evaluation.behavior.suite_files import read_suite
from finsent.evaluation.config import SHIPPED
from finsent.inference.engine import Engine
from finsent.judging.champion_gate import check_gate
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.metrics_record import Behavior
from finsent.registry.config import PublishConfig
from finsent.registry.gate import Clearance
from finsent.registry.model_version import ModelVersion
from finsent.rollout.config import PromoteConfig
from finsent.rollout.gate_report import GateOutcome, GateReport, GateResult
from finsent.rollout.shadows import Shadows


@dataclass(frozen=True)
class Promotion:
    """A version, the alias that it shall get, and the rules."""

    setup: EvaluationSetup
    rules: PublishConfig
    config: PromoteConfig
    candidate: ModelVersion
    current: ModelVersion | None  # that has the alias; None: no version

    @classmethod
    def find(
        cls,
        setup: EvaluationSetup,
        rules: PublishConfig,
        config: PromoteConfig,
        reference: str,
    ) -> Promotion:
        """Return the promotion of the version that a reference names.

        Raises:
            InputError: there is no such version, it has the alias, or a version is damaged.
        """
        registry, alias = setup.registry, config.alias
        candidate = registry.get(reference)
        has_alias = alias in registry.aliases()
        current = registry.get(f"alias:{alias}") if has_alias else None
        if current is not None and current.version == candidate.version:
            raise InputError(
                f"promote {reference}: the version {candidate.version} has the alias {alias!r} "
                "already. Name another version."
            )
        return cls(setup, rules, config, candidate, current)

    def run_gates(self, out: Path) -> GateReport:
        """Run all gates.

        Args:
            out: directory of the comparisons.

        Raises:
            InputError: a model or the behavior suite is unusable.
        """
        offline, clearance = self._offline(out)
        suite = _read_suite(self.setup)
        exact = self._exact(self.candidate)
        results = [offline, self._behavior(suite, exact), self._parity(suite, exact)]
        return GateReport([*results, self._shadow()], clearance)

    def _exact(self, version: ModelVersion) -> Engine:
        config = self.setup.engine.replaced(backend="torch", precision="fp32")
        return Engine(version.path, config)

    def _offline(self, out: Path) -> tuple[GateResult, Clearance | None]:
        name, alias = "offline comparison", self.config.alias
        rows = self.candidate.manifest.metrics.rows
        replaced = self.current.version if self.current else None
        try:
            clearance = check_gate(self.setup, self.rules, self.candidate.path, alias, out, rows)
        except InputError as error:
            return GateResult(name, "refused", str(error)), None
        if clearance is None:
            reason = f"the alias {alias!r} needs no comparison"
            return GateResult(name, "not judged", reason), Clearance(replaced)
        if clearance.gate is None:
            return GateResult(name, "not judged", "there is no champion to compare with"), clearance
        gate = clearance.gate
        reason = f"{gate.outcome}: {gate.reason}"
        return GateResult(name, "not judged" if gate.forced else "passed", reason), clearance

    def _behavior(self, suite: Suite | None, exact: Engine) -> GateResult:
        name = "behavior suite"
        if suite is None:
            return GateResult(name, "not judged", "evaluate.behavior=null")
        own = run_suite(suite, exact.probabilities)
        counts = _failures(own)
        if self.current is None:
            return GateResult(name, "not judged", f"{counts}; no version has the alias")
        other = run_suite(suite, self._exact(self.current).probabilities)
        change = own.failure_rate - other.failure_rate
        outcome: GateOutcome = "passed" if change <= self.config.behavior_margin else "refused"
        limit = f"promote.behavior_margin={self.config.behavior_margin:g}"
        return GateResult(
            name, outcome, f"{counts}, the current version {_failures(other)} ({limit})"
        )

    def _parity(self, suite: Suite | None, exact: Engine) -> GateResult:
        """Compare the backend that the service would choose on this machine with torch in fp32."""
        name = "parity of the backend"
        engine = Engine(self.candidate.path, self.setup.engine)
        if engine.backend.name == exact.backend.name:
            return GateResult(name, "passed", f"{engine.backend.name} is the reference itself")
        if suite is None:
            return GateResult(name, "not judged", "evaluate.behavior=null: no texts")
        texts = _texts(suite)
        served, reference = engine.probabilities(texts), exact.probabilities(texts)
        share = float((served.argmax(1) == reference.argmax(1)).mean())
        difference = float(np.abs(served - reference).max())
        outcome: GateOutcome = "passed" if 1 - share <= self.config.parity_margin else "refused"
        reason = (
            f"{engine.backend.name}: {share:.1%} of the labels of {len(texts):,} texts are equal, "
            f"probabilities differ by at most {difference:.2g} "
            f"(promote.parity_margin={self.config.parity_margin:g})"
        )
        return GateResult(name, outcome, reason)

    def _shadow(self) -> GateResult:
        name, current = "shadow", self.current
        record = None
        if current is not None:
            shadows = Shadows(self.setup.workspace.root)
            record = shadows.get(current.version, self.candidate.version)
        if record is None:
            return GateResult(name, "not judged", "the version was no shadow of the current one")
        verdict = record.verdict(self.config.shadow_margin)
        share = record.same_labels / record.texts if record.texts else 0.0
        reason = f"{verdict}: {share:.1%} of {record.texts:,} texts got the same label"
        outcomes: dict[str, GateOutcome] = {"worse": "refused", "undecided": "not judged"}
        return GateResult(name, outcomes.get(verdict, "passed"), reason)


def _read_suite(setup: EvaluationSetup) -> Suite | None:
    behavior = setup.evaluate.behavior
    if behavior is None:
        return None
    return read_suite(None if behavior == SHIPPED else Path(behavior).expanduser())


def _failures(behavior: Behavior) -> str:
    return f"{behavior.failed:,} of {behavior.cases:,} cases failed ({behavior.failure_rate:.1%})"


def _texts(suite: Suite) -> Sequence[str]:
    cases = [case for group in suite for case in group.expand()]
    return list(dict.fromkeys(text for case in cases for text in case.texts))
