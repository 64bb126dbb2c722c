"""What a test may cost."""

from __future__ import annotations

import pytest

from tests.budget import NOISE, Costs, budget_of
from tests.scheduling import scope_of


@pytest.mark.cost(7, "shows a stated budget")
def test_a_stated_budget_counts(request: pytest.FixtureRequest) -> None:
    assert budget_of(request.node) == 7


def test_the_folder_gives_the_budget(request: pytest.FixtureRequest) -> None:
    assert budget_of(request.node) == 0.1


@pytest.mark.parametrize("is_quiet", [True, False])
def test_a_dear_test_fails_a_run_on_a_quiet_machine(
    request: pytest.FixtureRequest, is_quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = Costs()
    costs.is_quiet = is_quiet
    costs.costs = {
        "dear": (7.0, 3.0),
        "cheap": (5.0, 3.0),
        "noise": (NOISE, 0.1),
        "slow": (9, None),
    }
    assert [*costs.over()] == ["dear"]
    monkeypatch.delenv("FINSENT_COSTS", raising=False)
    monkeypatch.setattr(request.session, "exitstatus", pytest.ExitCode.OK)
    costs.pytest_sessionfinish(request.session, pytest.ExitCode.OK)
    failed = request.session.exitstatus == pytest.ExitCode.TESTS_FAILED
    assert failed == is_quiet


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        ("tests/unit/test_a.py::test_b[x::y]", "tests/unit/test_a.py"),
        ("tests/integration/test_a.py::test_b", "tests/integration"),
        ("tests/e2e/test_a.py::test_b", "tests/e2e"),
    ],
)
def test_tests_that_share_a_cluster_stay_together(nodeid: str, scope: str) -> None:
    assert scope_of(nodeid) == scope
