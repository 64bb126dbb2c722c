"""The gate of a sweep's best model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from finsent.evaluation.config import EvaluateConfig
from finsent.tracking.config import TrackingConfig
from ray_jobs import sweep
from ray_jobs._cli import RefusedError
from tests.unit import sweeps
from tests.unit.judging.worlds import World, metrics
from tune.config import SweepConfig
from tune.records import Verification
from tune.results import SweepResult

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "measures models")]


def test_sweep_measures_its_model_as_it_is(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.run("good") / "model", tmp_path / "model")
    evaluate = EvaluateConfig(calibration="tweets", split="train", baselines=False, behavior=None)
    record = sweeps.verification(model_dir=str(tmp_path / "model"))
    verification = Verification.model_validate(record)
    tested = sweep._test(world.settings(evaluate=evaluate), verification, tmp_path).test
    assert tested is not None
    own = metrics(world, "good")
    assert {key: tested[key] for key in ("rows", "accuracy")} == {
        key: own[key] for key in ("rows", "accuracy")
    }


def sweep_result() -> SweepResult:
    return SweepResult(
        trials={"done": 3},
        trials_wanted=3,
        repeated=0,
        exhausted=False,
        epochs=3,
        spent_share=1.0,
        driver_share=None,
        best={"trial": 0},
        verified=None,
        front=None,
        best_yaml="best.yaml",
        page=None,
        storage=None,
        study=None,
    )


def test_sweep_keeps_its_result_when_the_gate_refuses_the_winner(world: World) -> None:
    world.publish("good")
    run_dir = world.root / "runs/sweep"
    shutil.copytree(world.run("poor"), run_dir)
    settings = world.settings(
        sweep=SweepConfig(publish="champion"), tracking=TrackingConfig(mode="disabled")
    )
    result = sweep_result()
    try:
        with pytest.raises(RefusedError, match="inferior to the champion") as caught:
            sweep._finish(settings, run_dir, result, None)
    finally:
        shutil.rmtree(run_dir)
    assert caught.value.result == result
