"""A pytest plugin: CPU seconds of each test, and what a test of a kind may cost.

The CPU seconds are those of this process and of all processes below it, dead ones included once
their parent has waited for them. `@pytest.mark.cost(seconds, reason)` states a test's own budget.
A test over its budget fails the run on a quiet machine. Where others compute, too, CPU seconds
grow, since cores share caches: then the run only lists such tests. So does a run that measures
coverage, plants faults or tries more examples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.properties import DEEP

# CPU seconds. A test of another kind has no budget.
BUDGETS = {"unit": 0.1, "integration": 3.0, "e2e": 20.0}
# The same code costs up to three times as many CPU seconds on a core that others share.
TOLERANCE = 3.0
# Environment of runs that cost more.
UNENFORCED = ("COVERAGE_PROCESS_START", "FINSENT_MUTANT")
# Load average per core, before the first test, above which a machine is not quiet.
BUSY = 1.5
# Seconds below which a reading says nothing: a collection of garbage, a first import.
NOISE = 2.0
REPORT = "FINSENT_COSTS"  # environment: the file that CPU seconds per test are written to


@dataclass(frozen=True)
class Usage:
    """CPU seconds of a process, and of its children that it has waited for."""

    parent: int
    own: float
    waited: float


def usages(tree: bool) -> dict[int, Usage]:
    """The usage of this process, by process id.

    Args:
        tree: also of living processes below it. That takes milliseconds.
    """
    times = os.times()
    processes = {
        os.getpid(): Usage(
            0, times.user + times.system, times.children_user + times.children_system
        )
    }
    for process in psutil.Process().children(recursive=True) if tree else ():
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            waited = used.children_user + used.children_system
            processes[process.pid] = Usage(process.ppid(), used.user + used.system, waited)
    return processes


def cpu_seconds(before: dict[int, Usage], after: dict[int, Usage]) -> float:
    """CPU seconds between two readings; a killed process that nothing has waited for is missing."""
    nothing = Usage(0, 0.0, 0.0)
    seconds = 0.0
    for pid, usage in after.items():
        earlier = before.get(pid, nothing)
        gone = sum(
            other.own + other.waited
            for child, other in before.items()
            if other.parent == pid and child not in after
        )
        seconds += usage.own - earlier.own + max(0.0, usage.waited - earlier.waited - gone)
    return seconds


def budget_of(item: pytest.Item) -> float | None:
    """CPU seconds that a test may cost; None: no limit."""
    stated = item.get_closest_marker("cost")
    if stated is not None:
        return float(stated.args[0])
    return next((BUDGETS[kind] for kind in BUDGETS if item.get_closest_marker(kind)), None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Measure the call alone: fixtures are shared."""
    tree = item.get_closest_marker("unit") is None
    before = usages(tree)
    try:
        yield
    finally:
        seconds = cpu_seconds(before, usages(tree))
        item.user_properties.append(("cpu_seconds", round(seconds, 3)))
        item.user_properties.append(("cpu_budget", budget_of(item)))


class Costs:
    """Collects costs in the process that reports, which is not an xdist worker."""

    def __init__(self) -> None:
        is_quiet = os.getloadavg()[0] <= BUSY * (os.cpu_count() or 1)
        self.is_enforced = is_quiet and DEEP == 1 and not {*UNENFORCED} & {*os.environ}
        self.costs: dict[str, tuple[float, float | None]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what the test's process has measured."""
        properties = dict(report.user_properties)
        if report.when == "call" and "cpu_seconds" in properties:
            budget = properties["cpu_budget"]
            assert isinstance(budget, float | None)
            self.costs[report.nodeid] = float(str(properties["cpu_seconds"])), budget

    def over(self) -> dict[str, tuple[float, float]]:
        """CPU seconds and budget of each test that costs too much."""
        return {
            name: (cost, budget)
            for name, (cost, budget) in self.costs.items()
            if budget is not None and cost > max(TOLERANCE * budget, NOISE)
        }

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail a run that passed but costs too much."""
        if path := os.environ.get(REPORT):
            Path(path).write_text(json.dumps(self.costs, indent=1), encoding="utf-8")
        if self.is_enforced and self.over() and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the tests that cost most, and those over budget."""
        dearest = sorted(self.costs.items(), key=lambda pair: -pair[1][0])[:15]
        terminalreporter.section("CPU seconds of the dearest tests")
        for name, (cost, budget) in dearest:
            terminalreporter.write_line(f"{cost:8.1f} of {budget} {name}")
        total = sum(cost for cost, _ in self.costs.values())
        terminalreporter.write_line(f"{total:8.1f} in {len(self.costs)} tests, without fixtures")
        if not self.is_enforced:
            terminalreporter.write_line("Budgets are not enforced in this run.")
        for name, (cost, budget) in self.over().items():
            terminalreporter.write_line(
                f"OVER BUDGET: {cost} of {budget} CPU seconds: {name}", red=self.is_enforced
            )


def pytest_configure(config: pytest.Config) -> None:
    """Collect where the results come together."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Costs(), "finsent-costs")
