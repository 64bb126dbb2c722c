"""The jobs `promote` and `rollback`: gates, alias, canary, audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finsent.errors import ConfigError, InputError
from finsent.evaluation.config import EvaluateConfig
from finsent.inference.config import EngineConfig
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.registry.config import PublishConfig
from finsent.rollout.config import PromoteConfig
from finsent.rollout.gates import Promotion
from finsent.rollout.rollouts import Rollouts
from finsent.rollout.shadows import ShadowCounts, Shadows
from finsent.storage import StorageConfig
from ray_jobs import promote, rollback
from ray_jobs._cli import Call, RefusedError
from ray_jobs._results import as_result
from ray_jobs._settings import JobSettings
from tests.unit.judging.worlds import World
from tests.unit.models import published

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.cost(4, "measures models, some of them on a suite"),
]


def run_promote(world: World, *names: str, **sections: Any) -> dict[str, Any]:
    # The tiny models fail half of the shipped suite, whatever they were trained on.
    sections = {"evaluate": EvaluateConfig(behavior=None), **sections}
    call = Call(world.settings(**sections), world.root / "runs" / "promote", [*names])
    return as_result(promote.run(call))


def run_rollback(world: World, *names: str) -> dict[str, Any]:
    return as_result(rollback.run(Call(world.settings(), world.root, [*names])))


def rollouts(world: World) -> Rollouts:
    return Rollouts(world.settings().workspace.root, world.registry())


def outcomes(gates: list[dict[str, Any]]) -> dict[str, str]:
    return {gate["gate"]: gate["outcome"] for gate in gates}


@pytest.fixture
def versions(world: World) -> dict[str, str]:
    """Publish both models: `poor` has the alias champion, `good` the alias challenger."""
    poor = world.publish("poor", alias="champion")["model_version"]
    good = world.publish("good", alias="challenger")["model_version"]
    for name in ("rollouts", "audit", "shadow"):  # of an earlier test
        (world.settings().workspace.root / name).store.delete_prefix("")
    return {"poor": poor, "good": good}


def test_a_better_model_gets_the_alias_and_a_rollback_returns_it(
    world: World, versions: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_promote(world, "challenger")
    assert (result["model_version"], result["replaced"]) == (versions["good"], versions["poor"])
    assert outcomes(result["gates"]) == {
        "offline comparison": "passed",
        "behavior suite": "not judged",
        "parity of the backend": "passed",
        "shadow": "not judged",
    }
    assert "not inferior" in result["gates"][0]["reason"]
    table = capsys.readouterr().err
    assert "offline" in table
    assert "passed" in table
    assert world.registry().aliases()["champion"] == versions["good"]

    back = run_rollback(world)
    assert (back["model_version"], back["instead_of"]) == (versions["poor"], versions["good"])
    assert world.registry().aliases()["champion"] == versions["poor"]
    decisions = [
        (entry.decision.action, entry.candidate) for entry in rollouts(world).audit.entries()
    ]
    assert decisions == [("promote", versions["good"]), ("roll back", versions["poor"])]


def test_a_worse_model_is_refused_with_the_outcomes_of_all_gates(
    world: World, versions: dict[str, str]
) -> None:
    run_promote(world, "challenger")
    with pytest.raises(RefusedError, match=r"refused by offline comparison: .* inferior") as caught:
        run_promote(world, f"version:{versions['poor']}")
    result = as_result(caught.value.result)
    assert outcomes(result["gates"])["offline comparison"] == "refused"
    assert len(result["gates"]) == 4
    assert world.registry().aliases()["champion"] == versions["good"]


def test_a_model_that_fails_more_cases_of_the_suite_is_refused(
    world: World, versions: dict[str, str]
) -> None:
    suite = EvaluateConfig()
    with pytest.raises(RefusedError, match=r"behavior suite: \d+ of 331 cases failed"):
        run_promote(world, "challenger", evaluate=suite)
    assert world.registry().aliases()["champion"] == versions["poor"]
    lenient = PromoteConfig(behavior_margin=0.5)
    result = run_promote(world, "challenger", evaluate=suite, promote=lenient)
    assert outcomes(result["gates"])["behavior suite"] == "passed"
    run_rollback(world)
    forced = run_promote(world, "challenger", evaluate=suite, publish=PublishConfig(force=True))
    assert outcomes(forced["gates"])["behavior suite"] == "refused"


def test_parity_of_the_backend_is_measured_on_the_texts_of_the_suite(
    tiny: Path, tmp_path: Path
) -> None:
    engine = EngineConfig(backend="onnxruntime", precision="fp32", threads=1)
    published(tiny, tmp_path, engine, ("served", "challenger"))
    settings = JobSettings(storage=StorageConfig(root=str(tmp_path)), engine=engine)
    setup, config = EvaluationSetup.of(settings), PromoteConfig(alias="served")
    promotion = Promotion.find(setup, settings.publish, config, "challenger")
    report = promotion.run_gates(tmp_path / "comparison")
    parity = report.results[2]
    assert parity.outcome == "passed"
    assert parity.reason.startswith("onnxruntime-fp32: 100.0% of the labels of ")
    offline = report.results[0]
    assert (offline.outcome, offline.reason) == (
        "not judged",
        "the alias 'served' needs no comparison",
    )
    assert report.clearance is not None
    assert report.clearance.replaces == setup.registry.aliases()["served"]


def test_a_canary_starts_and_a_rollback_ends_it(world: World, versions: dict[str, str]) -> None:
    result = run_promote(world, "challenger", promote=PromoteConfig(canary=True, stages=[5, 100]))
    assert result["share"] == 0.05
    assert world.registry().aliases()["champion"] == versions["poor"]
    record = rollouts(world).get("champion")
    assert record is not None
    assert (record.id, record.candidate) == (result["rollout"], versions["good"])
    assert record.gate is not None
    with pytest.raises(InputError, match="gets 5% of the requests"):
        run_promote(world, "challenger")

    back = run_rollback(world, "champion")
    assert (back["model_version"], back["rollout"]) == (versions["poor"], record.id)
    ended = rollouts(world).get("champion")
    assert ended is not None
    assert (ended.status, ended.decisions[-1].reason) == ("rolled back", "by finsent rollback")
    with pytest.raises(InputError, match="has no earlier version"):
        run_rollback(world, "champion")


@pytest.mark.parametrize(
    ("same", "outcome"), [(2_000, "passed"), (100, "not judged")], ids=["equal", "few texts"]
)
def test_the_verdict_of_a_shadow_is_a_gate(
    world: World, versions: dict[str, str], same: int, outcome: str
) -> None:
    counts = ShadowCounts(texts=same)
    counts.confusion["neutral"]["neutral"] = same
    shadows = Shadows(world.settings().workspace.root)
    shadows.add(versions["poor"], versions["good"], counts)
    assert outcomes(run_promote(world, "challenger")["gates"])["shadow"] == outcome


def test_wrong_arguments_are_refused(world: World, versions: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"promote '': not one model\. Write promote MODEL\."):
        run_promote(world)
    with pytest.raises(InputError, match="has the alias 'champion' already"):
        run_promote(world, f"version:{versions['poor']}")
    with pytest.raises(InputError, match=r"no version has the alias 'new'"):
        run_promote(world, "challenger", promote=PromoteConfig(alias="new", canary=True))
    with pytest.raises(ConfigError, match="rollback 'a b': not one alias"):
        run_rollback(world, "a", "b")


@pytest.mark.parametrize("stages", [[], [5, 1, 100], [1, 5], [0, 100]])
def test_stages_that_do_not_rise_to_100_are_refused(stages: list[float]) -> None:
    with pytest.raises(ValueError, match=r"stages"):
        PromoteConfig(stages=stages)
