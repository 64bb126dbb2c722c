"""Models and champions that the gate cannot judge."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from finsent.errors import InputError
from finsent.files import read_json, write_json
from ray_jobs import compare
from ray_jobs._cli import Call
from tests.unit.dataset_versions import Row
from tests.unit.judging.worlds import World, clean_rows, noisy_rows

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "measures models")]


# --- compare --------------------------------------------------------------------------------------


def read_metadata(weights: Path) -> dict[str, str]:
    """Return the metadata of a file of weights, which hold the folded temperature."""
    with safe_open(weights, "pt") as file:
        return dict(file.metadata() or {})


# --- the gate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_champion_damaged", [False, True])
def test_broken_model_never_becomes_champion(world: World, is_champion_damaged: bool) -> None:
    good = world.publish("good")["model_version"]
    if is_champion_damaged:
        (world.root / "registry/versions" / good / "config.json").unlink()
    shutil.copytree(world.run("poor"), world.run("broken"))
    try:
        (world.run("broken") / "model/model.safetensors").write_bytes(b"x")
        with pytest.raises(InputError, match=r"runs/broken/model.*cannot be loaded") as caught:
            world.publish("broken", force=True)
    finally:
        shutil.rmtree(world.run("broken"))
    assert "cannot tell" not in str(caught.value)
    assert world.registry().aliases() == {"champion": good}


def test_model_whose_answers_are_not_numbers_never_becomes_champion(world: World) -> None:
    """Such answers would count as wrong, and the model as inferior, which publish.force passes."""
    good = world.publish("good")["model_version"]
    shutil.copytree(world.run("poor"), world.run("nan"))
    try:
        weights = world.run("nan") / "model/model.safetensors"
        tensors = load_file(weights)
        tensors["classifier.weight"][:] = float("nan")
        save_file(tensors, weights, read_metadata(weights))
        with pytest.raises(InputError, match=r"runs/nan/model.*answers are not numbers"):
            world.publish("nan", force=True)
    finally:
        shutil.rmtree(world.run("nan"))
    assert world.registry().aliases() == {"champion": good}


@pytest.mark.parametrize("dataset", [None, {"name": "tests"}, "tests"])
def test_provenance_without_a_dataset_is_an_error_of_one_line(
    world: World, tmp_path: Path, dataset: object
) -> None:
    model_dir = Path(shutil.copytree(world.run("good") / "model", tmp_path / "model"))
    provenance = read_json(model_dir / "provenance.json")
    del provenance["dataset"]
    if dataset is not None:
        provenance["dataset"] = dataset
    write_json(model_dir / "provenance.json", provenance)
    with pytest.raises(
        InputError, match=r"provenance\.json: dataset.*directory is damaged"
    ) as error:
        compare.run(Call(world.settings(), tmp_path, [str(model_dir), "good"]))
    assert "\n" not in str(error.value)


def test_champions_own_rows_judge_too(
    world: World, copy_run: Callable[[str, str, list[Row]], Path]
) -> None:
    """The model's own test split has no negative row; these are what the model misses."""
    copy_run("poor", "narrow", clean_rows("test", *["neutral", "positive"] * 60))
    good = world.publish("good")["model_version"]
    with pytest.raises(InputError, match=rf"inferior to the champion {good}: the champion's test "):
        world.publish("narrow")
    comparisons = world.root / "runs/publish-narrow"
    assert read_json(comparisons / "comparison/comparison.json")["rows"] == 120
    assert read_json(comparisons / "comparison-champion/comparison.json")["rows"] == 200
    gate = world.publish("narrow", force=True)["gate"]
    result = {split["split_of"]: split["judgment"]["outcome"] for split in gate["splits"]}
    assert result == {"candidate": "not inferior", "champion": "inferior"}


def test_champion_whose_rows_are_not_at_hand_cannot_be_judged(
    world: World, copy_run: Callable[[str, str, list[Row]], Path]
) -> None:
    dataset = copy_run("poor", "lost", clean_rows("test", "neutral"))
    world.publish("lost")
    shutil.rmtree(dataset)
    with pytest.raises(
        InputError, match=r"cannot tell.*champion's test split.*Ingest the dataset again, give"
    ):
        world.publish("good")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_that_a_model_was_trained_or_validated_on_do_not_count(
    world: World, copy_run: Callable[[str, str, list[Row]], Path], split: str
) -> None:
    """The candidate's training or validation rows are the champion's test rows."""
    rows = noisy_rows(200, "test", 2)
    copy_run(
        "good", "cheat", [row._replace(split=split) for row in rows] + clean_rows("test", "neutral")
    )
    world.publish("poor")
    with pytest.raises(InputError, match=r"champion's test split .*no row that neither model was"):
        world.publish("cheat")


def test_champion_that_cannot_be_loaded_stops_the_gate_unless_forced(world: World) -> None:
    poor = world.publish("poor")["model_version"]
    (world.root / "registry" / "versions" / poor / "model.safetensors").write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"cannot tell .*champion is unusable.*force=true"
    ) as caught:
        world.publish("good")
    assert "Restore the champion, or roll the alias back" in str(caught.value)
    assert "Add rows" not in str(caught.value)
    assert ".." not in str(caught.value)
    gate = world.publish("good", force=True)["gate"]
    assert (gate["outcome"], gate["forced"], gate["against"]) == ("cannot tell", True, poor)
    assert "does not match its SHA-256" in gate["reason"]
