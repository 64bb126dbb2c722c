"""The job `compare` on small models, without Ray."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from finsent.errors import ConfigError, InputError
from finsent.registry.config import PublishConfig
from ray_jobs import compare
from ray_jobs._cli import Call
from ray_jobs._results import as_result
from tests.unit.judging.worlds import World, metrics

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "measures models")]


def test_compare_says_which_is_better_and_on_which_rows(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = as_result(compare.run(Call(world.settings(), tmp_path, ["poor", "good"])))
    assert result["verdict"] == "better"
    assert result["rows"] == 200
    assert result["b"]["macro_f1"] == metrics(world, "good")["macro_f1"]
    assert result["a"]["model_dir"] == str(world.run("poor") / "model")
    assert result["seen_in_training"] == {"a": 0, "b": 0}
    assert result["overlap"]["b"] == {
        "rows": 0,
        "near_copies": result["overlap"]["a"]["near_copies"],
        "reason": None,
    }
    assert result["with_seen"] is None
    assert result["truncation"]["a"]["cut"] == 0
    flips = pq.read_table(Path(result["comparison_dir"]) / "flipped.parquet")
    assert len(flips) == result["flipped"] > 20
    assert result["judgment"]["outcome"] == "not inferior"
    assert "B is: better" in capsys.readouterr().err
    back = as_result(compare.run(Call(world.settings(), tmp_path, ["good", "poor"])))
    assert (back["verdict"], back["judgment"]["outcome"]) == ("worse", "inferior")


def test_compare_judges_in_the_gates_words(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = PublishConfig(min_rows=201)
    with caplog.at_level("INFO"):
        result = compare.run(Call(world.settings(publish=rules), tmp_path, ["poor", "good"]))
    judgment = result.judgment
    assert (judgment.outcome, judgment.rows) == ("cannot tell", 200)
    assert f"B as a replacement of A: cannot tell: {judgment.reason}" in caplog.text
    assert judgment.macro_f1 is not None
    assert judgment.macro_f1.bound > 0  # better, but on fewer rows than were demanded


def test_compare_leaves_out_what_a_model_was_trained_on(world: World, tmp_path: Path) -> None:
    config = world.settings().evaluate.replaced(split="train")
    settings = world.settings(evaluate=config)
    with pytest.raises(InputError, match="trained or validated on each of the 300 rows of train"):
        compare.run(Call(settings, tmp_path, ["poor", "good"]))


@pytest.mark.parametrize("arguments", [[], ["good"], ["a", "b", "c"]])
def test_compare_takes_two_models(world: World, tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"not two models\. Write A B: "):
        compare.run(Call(world.settings(), tmp_path, arguments))
