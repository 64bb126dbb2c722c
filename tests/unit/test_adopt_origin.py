"""Origin and license of adopted classifiers."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.adoption.adopt import adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.files import read_json, sha256_file
from finsent.modeling.model_folder import find_model_folder
from tests.unit.adoption import opened
from tests.unit.foreign import classifier, saved, snapshot

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(6, "exports and measures")]


def test_hub_id_brings_commit_and_license(tiny: Path, tmp_path: Path, hub_cache: Path) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny, pickled=True)
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    commit = snapshot(hub_cache, "someone", "finbert", folder).name
    model_folder = find_model_folder("someone/finbert", None, "SOURCE", "")
    foreign = open_foreign("someone/finbert", model_folder, AdoptConfig())
    adopt(foreign, tmp_path / "model")
    origin = read_json(tmp_path / "model" / "provenance.json")["origin"]
    assert (origin["revision"], origin["license"]) == (commit, "cc-by-nc-4.0")
    digests = {file["path"]: file["sha256"] for file in origin["files"]}
    assert digests["pytorch_model.bin"] == sha256_file(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "card", ["", "# No head", "---\nlicense", "---\n[\n---\n", "---\n- a\n---\n", "---\nx: 1\n---"]
)
def test_license_is_unknown_rather_than_guessed(tiny: Path, tmp_path: Path, card: str) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny)
    (folder / "README.md").write_text(card)
    foreign = opened(folder)
    assert foreign.license is None
    assert "its license is unknown; set adopt.license" in adopt(foreign, tmp_path / "model")[0]
