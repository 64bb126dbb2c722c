"""Rollouts of canaries with a known truth, and verdicts on pairs of versions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.settings import BenchSettings, benchmark
from finsent.monitoring.canary import SHARES, CanaryTest, Decision, Events
from finsent.monitoring.paired import PairedRows, PairedTest
from finsent.monitoring.ranks import Ints
from ray_jobs._cli import Result, main

MORE_ERRORS = 0.02
BASE_RATES = (0.0, 0.001, 0.002, 0.005, 0.01)  # errors of the current version
SLOW_RATE, MEDIAN_RATE, ABSTENTION_RATE, DISAGREEMENT_RATE = 0.01, 0.1, 0.05, 0.06
ALLOWED_DISAGREEMENT = 0.1
REQUESTS_BAR, MAX_REQUESTS, BATCH = 500, 5_000, 10
MARGIN = 0.02
PAIRED_ROWS, PAIRED_BATCH = 5_000, 50
DISCORDANT = 0.06  # share of texts on which only one of two equal versions is right


@dataclass
class Rollout:
    """A simulated rollout until its end, or for MAX_REQUESTS requests to the canary."""

    decision: Decision
    requests: int
    stage: int


def bench_canary(settings: BenchSettings) -> Result:
    """Simulate rollouts of equal and of worse versions, and paired verdicts."""
    runs = settings.bench.shift_runs
    random = np.random.default_rng(settings.bench.seed)
    return {
        "rollouts": runs,
        "canary": {f"{rate:.1%} errors": _rollouts(random, rate, runs) for rate in BASE_RATES},
        "incident": _incidents(random, runs),
        "paired": {
            f"{gain:+.0%}": _paired(random, gain, runs) for gain in (-0.05, -0.02, 0.0, 0.05)
        },
    }


def _rollouts(random: np.random.Generator, rate: float, count: int) -> Result:
    worse = [_rollout(random, rate, MORE_ERRORS) for _ in range(count)]
    equal = [_rollout(random, rate, 0.0) for _ in range(count)]
    stopped = np.array([run.requests for run in worse if run.decision == "roll back"])
    return {
        "worse_stopped_share": float((stopped <= REQUESTS_BAR).sum() / count),
        "worse_requests_p95": float(np.quantile(stopped, 0.95)) if len(stopped) else None,
        "worse_served_completely": sum(run.stage == len(SHARES) - 1 for run in worse),
        "equal_stopped_share": sum(run.decision == "roll back" for run in equal) / count,
        "equal_served_completely": sum(run.stage == len(SHARES) - 1 for run in equal) / count,
        "equal_requests_median": float(np.median([run.requests for run in equal])),
    }


def _incidents(random: np.random.Generator, count: int) -> Result:
    """Return how often an equal version is stopped when both versions fail for 100 requests."""
    runs = [_rollout(random, 0.002, 0.0, incident=(200, 300)) for _ in range(count)]
    return {"equal_stopped_share": sum(run.decision == "roll back" for run in runs) / count}


def _rollout(
    random: np.random.Generator, rate: float, more: float, incident: tuple[int, int] = (0, 0)
) -> Rollout:
    """Run one rollout.

    Args:
        random: of the events.
        rate: errors of the current version per request.
        more: additional errors of the canary per request.
        incident: first and last canary request of a time in which 20 % of all requests fail.
    """
    test = CanaryTest(MARGIN, ALLOWED_DISAGREEMENT)
    share = SHARES[0]
    while test.state.requests < MAX_REQUESTS and share < 1:
        control = round((1 - share) / share)
        is_incident = incident[0] <= test.state.requests < incident[1]
        base = 0.2 if is_incident else rate
        events = {
            "error": _events(random, base, base + more, control),
            "slow": _events(random, SLOW_RATE, SLOW_RATE, control),
            "slow_median": _events(random, MEDIAN_RATE, MEDIAN_RATE, control),
            "abstained": _events(random, ABSTENTION_RATE, ABSTENTION_RATE, control),
        }
        decision = test.update(events, _flags(random, DISAGREEMENT_RATE))
        if decision == "roll back":
            return Rollout(decision, test.state.requests, test.state.stage)
        if decision == "advance":
            share = test.advance()
    return Rollout("hold", test.state.requests, test.state.stage)


def _flags(random: np.random.Generator, rate: float) -> Ints:
    return (random.random(BATCH) < rate).astype(np.int64)


def _events(random: np.random.Generator, control: float, canary: float, requests: int) -> Events:
    return Events(
        _flags(random, canary),
        random.binomial(requests, control, BATCH),
        np.full(BATCH, requests),
    )


def _paired(random: np.random.Generator, gain: float, count: int) -> Result:
    """Return verdicts after PAIRED_ROWS labels, and labels until the first verdict."""
    only_b = DISCORDANT / 2 + max(gain, 0)
    only_a = DISCORDANT / 2 + max(-gain, 0)
    verdicts: list[str] = []
    labels = []
    for _ in range(count):
        test = PairedTest(MARGIN)
        for _ in range(PAIRED_ROWS // PAIRED_BATCH):
            a, b, same = random.multinomial(PAIRED_BATCH, [only_a, only_b, 1 - only_a - only_b])
            if test.update(PairedRows(int(a), int(b), int(same))) != "undecided":
                break
        verdicts.append(test.verdict())
        labels.append(test.state.only_a + test.state.only_b + test.state.same)
    names = sorted(set(verdicts))
    return {
        "verdicts": {name: verdicts.count(name) / count for name in names},
        "labels_median": float(np.median(labels)),
    }


JOB = benchmark(
    "canary",
    bench_canary,
    summary="Measure rollbacks of canaries and verdicts on pairs, on simulated requests.",
    result="canary (worse_stopped_share; bar: 0.95; equal_stopped_share; bar: 0.05), "
    "incident, paired",
    sections=(),
)

if __name__ == "__main__":
    main(JOB)
