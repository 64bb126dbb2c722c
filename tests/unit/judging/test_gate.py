"""The gate in front of the alias `champion`: better, worse and undecided models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finsent.data.config import SourceConfig
from finsent.errors import InputError
from finsent.evaluation.config import EvaluateConfig
from finsent.registry.config import PublishConfig
from ray_jobs import evaluate, publish, registry
from ray_jobs._cli import Call
from ray_jobs._results import as_result
from tests.unit.dataset_versions import Row
from tests.unit.judging.worlds import World, clean_rows

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "measures models")]


def champion_alias(world: World) -> dict[str, Any]:
    result = json.loads((world.root / "registry" / "aliases" / "champion.json").read_text())
    assert isinstance(result, dict)
    return result


def test_first_champion_is_compared_with_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    result = world.publish("poor")
    assert result["gate"] is None
    again = world.publish("poor")  # the same model
    assert (again["model_version"], again["gate"]) == (result["model_version"], None)
    assert "first champion" not in caplog.text
    version = world.registry().get("champion")
    assert (version.path / "calibration.json").is_file()
    assert any(file.path == "calibration.json" for file in version.manifest.files)
    assert version.manifest.metrics.mistakes is None


def test_first_champion_that_was_measured_on_few_rows_is_a_warning(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish("poor", min_rows=201)
    assert "the first champion was measured on 200 rows" in caplog.text
    assert "compared with it on 201 (publish.min_rows)" in caplog.text


def test_better_model_becomes_champion_with_the_numbers_kept(world: World) -> None:
    poor = world.publish("poor")["model_version"]
    good = world.publish("good")
    assert world.registry().aliases() == {"champion": good["model_version"]}
    gate = good["gate"]
    assert (gate["against"], gate["outcome"], gate["forced"]) == (poor, "not inferior", False)
    [split] = gate["splits"]  # both were trained on one dataset version
    assert (split["split_of"], split["dataset_version"]) == ("both", "0123456789ab")
    assert (split["verdict"], split["judgment"]["rows"]) == ("better", 200)
    assert split["seen_in_training"] == {"champion": 0, "candidate": 0}
    assert split["seen_in_validation"] == {"champion": 0, "candidate": 0}
    gain = split["candidate"]["macro_f1"] - split["champion"]["macro_f1"]
    assert split["judgment"]["macro_f1"]["value"] == pytest.approx(gain)
    assert 0 < split["judgment"]["macro_f1"]["bound"] < gain
    version = world.registry().get("champion")
    assert version.manifest.gate is not None
    assert champion_alias(world)["gate"] == gate == version.manifest.gate.as_json()
    assert str(world.root) not in json.dumps(gate)
    card = (version.path / "README.md").read_text(encoding="utf-8")
    assert f"## Comparison with the previous champion (`{poor}`)" in card
    assert f"| both (`0123456789ab`) | 200 | {gain:+.3f} (" in card


def check_refused(world: World, model: str, *words: str) -> None:
    """Check that a model cannot become champion, by one line with the words and a way around."""
    with pytest.raises(InputError) as caught:
        world.publish(model)
    text = str(caught.value)
    for word in (*words, "publish.force=true"):
        assert word in text
    assert "\n" not in text


def test_worse_model_is_refused_with_the_numbers_unless_forced(world: World) -> None:
    good = world.publish("good")["model_version"]
    check_refused(
        world,
        "poor",
        f"inferior to the champion {good}",
        "worse on 200 rows",
        "macro-F1 0.",
        "against 0.",
        "95 % interval",
        "McNemar p = ",
    )
    assert [v.version for v in world.registry().versions()] == [good]

    other = world.publish("poor", alias="challenger")
    assert other["gate"] is None
    assert world.registry().aliases()["champion"] == good

    forced = world.publish("poor", force=True)
    assert (forced["gate"]["outcome"], forced["gate"]["forced"]) == ("inferior", True)
    assert world.registry().aliases()["champion"] == forced["model_version"]
    assert champion_alias(world)["gate"]["forced"] is True


def test_rows_that_cannot_tell_refuse_unless_forced(
    world: World,
    copy_run: Callable[[str, str, list[Row]], Path],
) -> None:
    """Three rows that the poorer model has right, too: it replaced the champion before."""
    rows = clean_rows("test", "neutral", "positive", "neutral")
    copy_run("poor", "three", rows)
    copy_run("good", "first", rows)
    good = world.publish("first")["model_version"]
    check_refused(
        world,
        "three",
        f"cannot tell whether the model is inferior to the champion {good}",
        "3 rows",
        "100 are needed (publish.min_rows)",
        "Add rows",
    )
    assert world.registry().aliases()["champion"] == good
    forced = world.publish("three", force=True)["gate"]
    assert (forced["outcome"], forced["forced"]) == ("cannot tell", True)
    assert forced["splits"][0]["judgment"]["absent_labels"] == ["negative"]


def test_gate_judges_models_as_published_on_their_own_rows(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the caller evaluates: other rows, another calibration, another bootstrap."""
    world.publish("poor")
    evaluate = EvaluateConfig(
        calibration="tweets",
        split="validation",
        dataset="nowhere",
        sources=[SourceConfig(uri="missing.csv")],
        bootstrap=100,
        seed=7,
    )
    rules = PublishConfig(model="good", margin=0.99, min_rows=1)
    config = world.settings(publish=rules, evaluate=evaluate)
    gate = publish.run(Call(config, world.root / "runs/publish-good")).gate
    assert gate is not None
    assert (gate.outcome, gate.resamples, gate.seed) == ("not inferior", 1000, 0)
    assert [split.judgment.rows for split in gate.splits] == [200]
    weakened = ["publish.margin=0.99 (default: 0.06)", "publish.min_rows=1 (default: 100)"]
    assert champion_alias(world)["gate"]["weakened"] == gate.weakened == weakened
    assert f"gate: rules weaker than the defaults: {weakened[0]}, {weakened[1]}" in caplog.text
    card = (world.registry().get("champion").path / "README.md").read_text(encoding="utf-8")
    assert f"Judged by rules weaker than the defaults: {weakened[0]} and {weakened[1]}." in card


def test_validation_rows_that_are_measured_on_are_a_warning(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = EvaluateConfig(split="validation", baselines=False, behavior=None)
    evaluate.step(world.settings(evaluate=config), world.run("good") / "model", tmp_path / "out")
    assert "evaluate: 150 of the 150 rows are validation rows of the model" in caplog.text


def test_promoting_to_champion_passes_the_gate_too(world: World) -> None:
    poor = world.publish("poor", alias="challenger")["model_version"]
    good = world.publish("good")["model_version"]

    def promote(*names: str, force: bool = False) -> dict[str, Any]:
        config = world.settings(publish=PublishConfig(force=force))
        return as_result(registry.run(Call(config, world.root, ["promote", *names])))

    with pytest.raises(InputError, match=f"inferior to the champion {good}.*publish.force=true"):
        promote("challenger", "champion")
    assert world.registry().aliases()["champion"] == good
    assert promote("challenger", "candidate")["gate"] is None
    forced = promote(poor, "champion", force=True)
    assert (forced["model_version"], forced["gate"]["forced"]) == (poor, True)
    assert champion_alias(world)["gate"] == forced["gate"]
    store = world.registry()  # what the service shows: of the alias, and of the publishing
    for reference in ("champion", "alias:champion"):
        gate = store.gate_of(reference, store.get(poor))
        assert gate is not None
        assert gate.as_json() == forced["gate"]
    assert store.gate_of(poor, store.get(poor)) is None
    config = world.settings()
    gates = as_result(registry.run(Call(config, world.root, ["show", poor])))["gates"]
    assert gates == {"candidate": None, "challenger": None, "champion": forced["gate"]}
    listed = as_result(registry.run(Call(config, world.root, ["list"])))["models"]
    result = {model["model_version"]: model["gates"] for model in listed}
    assert result[good] == {}
    assert (result[poor]["champion"]["outcome"], result[poor]["challenger"]) == ("inferior", None)
    assert store.gate_of("champion", store.get(good)) is None
    assert promote(good, "champion")["gate"]["outcome"] == "not inferior"
