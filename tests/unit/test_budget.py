"""What a test may cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.budget import NOISE, Costs, Usage, budget_of, cpu_seconds
from tests.scheduling import CLUSTER, CLUSTER_FILES, LONGEST, order_of, scope_of


@pytest.mark.cost(7, "shows a stated budget")
def test_a_stated_budget_counts(request: pytest.FixtureRequest) -> None:
    assert budget_of(request.node) == 7


def test_the_folder_gives_the_budget(request: pytest.FixtureRequest) -> None:
    assert budget_of(request.node) == 0.1


@pytest.mark.parametrize("is_enforced", [True, False])
def test_a_dear_test_fails_a_run_on_a_quiet_machine(
    request: pytest.FixtureRequest, is_enforced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = Costs()
    costs.is_enforced = is_enforced
    costs.costs = {
        "dear": (10.0, 3.0),
        "cheap": (8.0, 3.0),
        "noise": (NOISE, 0.1),
        "slow": (9, None),
    }
    assert [*costs.over()] == ["dear"]
    monkeypatch.delenv("FINSENT_COSTS", raising=False)
    monkeypatch.setattr(request.session, "exitstatus", pytest.ExitCode.OK)
    costs.pytest_sessionfinish(request.session, pytest.ExitCode.OK)
    failed = request.session.exitstatus == pytest.ExitCode.TESTS_FAILED
    assert failed == is_enforced


def test_cpu_seconds_are_counted_once_whoever_dies() -> None:
    before = {1: Usage(0, 10.0, 5.0), 2: Usage(1, 3.0, 0.0), 3: Usage(1, 4.0, 0.0)}
    # 2 died after 1 second more and 1 waited for it; nothing waited for 3; 4 is new.
    after = {1: Usage(0, 12.0, 9.0), 4: Usage(1, 0.5, 0.25)}
    assert cpu_seconds(before, {**after, 3: Usage(1, 4.5, 0.0)}) == 2 + 1 + 0.75 + 0.5
    assert cpu_seconds(before, after) == 2 + 0 + 0.75  # too little, and never negative


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        ("tests/unit/test_a.py::test_b[x::y]", "tests/unit/test_a.py"),
        ("tests/integration/test_a.py::test_b", "tests/integration"),
        ("tests/e2e/test_a.py::test_b", "tests/e2e/test_a.py"),
        ("tests/e2e/test_dvc.py::test_b", CLUSTER),
    ],
)
def test_tests_that_share_a_cluster_stay_together(nodeid: str, scope: str) -> None:
    assert scope_of(nodeid) == scope


def test_the_longest_scopes_exist_and_come_first() -> None:
    root = Path(__file__).parents[2]
    assert all((root / path).exists() for path in (*CLUSTER_FILES, *LONGEST) if path != CLUSTER)
    longest = [*CLUSTER_FILES, *(path for path in LONGEST if path != CLUSTER)]
    paths = ["tests/slow/test_serve.py", *reversed(longest)]
    ordered = sorted(paths, key=order_of)
    assert ordered[-1] == "tests/slow/test_serve.py"
    assert list(dict.fromkeys(map(scope_of, ordered)))[:-1] == [*LONGEST]
