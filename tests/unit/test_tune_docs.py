"""The how-to's code runs, block after block, on a sweep's records."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest

from tests.unit import sweeps

pytestmark = pytest.mark.cost(3, "runs a notebook")

HOW_TO = Path(__file__).parents[2] / "docs" / "tuning.md"


def test_the_notebook(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="synthetic", storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=12)
    sweeps.write(tmp_path, sweeps.drawn(12), storage=storage)
    blocks = re.findall(r"^```python\n(.*?)^```", HOW_TO.read_text("utf-8"), flags=re.M | re.S)
    assert len(blocks) == 4
    names = {"RUN_DIR": tmp_path}
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "sweep.html").is_file()
