"""A job that is killed resumes without scoring a row twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pytest

from finsent.errors import InputError
from finsent.files import directory_lock
from finsent.inference.config import EngineConfig
from finsent.job_metrics import JobMetrics
from finsent.modeling.model_dir import fingerprint
from finsent.scoring.batch import Batch
from finsent.scoring.config import PredictConfig
from finsent.scoring.model import ScoringModel
from finsent.scoring.parts import Parts
from finsent.scoring.pool import EngineActor
from finsent.scoring.score import Scorer
from finsent.scoring.scored import ScoredDir
from tests.unit.models import TEXTS
from tests.unit.scoring.scored_files import Row, csv_of, find, score, write

# --- resume ---------------------------------------------------------------------------------------


class KilledError(Exception):
    """Ends a run in the middle."""


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_a_resumed_file_equals_that_of_an_undisturbed_run(
    scorer: Scorer, tmp_path: Path, format: str
) -> None:
    rows = [Row(str(i), text, i % 5 == 3) for i, text in enumerate(TEXTS * 3)]
    (tmp_path / "a.csv").write_bytes(csv_of(rows))
    [file] = find(tmp_path / "a.csv")
    undisturbed = score(file, scorer, tmp_path / "undisturbed", format)

    calls = 0

    def dies(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        nonlocal calls
        for table in tables:
            calls += 1
            if calls == 4:
                raise KilledError
            yield scorer(table)

    parts = Parts(tmp_path / "begun" / "parts", 3)
    parts.folder.mkdir(parents=True)
    parts.open("one")
    with pytest.raises(KilledError):
        [*parts.score(file, dies)]
    last = sorted(parts.folder.glob("*.parquet"))[-1]
    last.write_bytes(last.read_bytes()[:-20])  # as a power cut leaves it
    (parts.folder / "00000003.partial").write_bytes(b"half")
    counted = [*parts.score(file, lambda tables: map(scorer, tables))]
    assert counted == [*[(3, True)] * 2, *[(3, False)] * 5]
    resumed = score(file, scorer, tmp_path / "begun", format)
    assert resumed.read_bytes() == undisturbed.read_bytes()


def test_parts_of_other_answers_are_not_used(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_of([Row("1", "Up")]))
    [file] = find(tmp_path / "a.csv")
    score(file, scorer, tmp_path)
    target = Parts(tmp_path / "parts", 3)
    target.open("another")
    assert [*target.score(file, lambda tables: map(scorer, tables))] == [(1, False)]


def test_all_rows_of_a_run_are_computed_with_one_backend(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_of([Row("1", "Up")]))
    [file] = find(tmp_path / "a.csv")
    [rows] = file.rows(0)
    folder = scorer.engine.model_dir
    model = ScoringModel(folder, "v1", fingerprint(folder), EngineConfig(threads=1))
    actor = EngineActor(model)
    assert actor.backend() == "torch-fp32"
    assert actor.score(rows, "torch-fp32").equals(scorer(rows))
    assert actor.score(rows, "torch-bf16").num_rows == 1
    assert actor.backend() == "torch-bf16"


# --- the directory --------------------------------------------------------------------------------


class LocalPool:
    """A pool that scores in this process, as `EnginePool` does in others."""

    backend, count = "torch-fp32", 1

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.tables = 0

    def map(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            self.tables += 1
            yield self._scorer(table)


def test_a_run_that_dies_after_a_file_is_complete_scores_no_row_again(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [file] = find(write(tmp_path / "news.csv"))
    out, pool = tmp_path / "out", LocalPool(scorer)
    folder = scorer.engine.model_dir
    model = ScoringModel(folder, "v1", fingerprint(folder), EngineConfig(threads=1))
    first, second = (Batch(model, PredictConfig(), {"n.parquet": file}, out) for _ in range(2))

    def die(_: Parts) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Parts, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            first.score(pool, JobMetrics())
    [record] = ScoredDir(out).records().values()
    assert (record.finished, record.rows) == (True, 1)
    assert second.score(pool, JobMetrics()) == 0  # as a second process that waited for the first
    assert second.summary().rows == 1
    assert pool.tables == 1
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "n.parquet"]


def test_two_processes_do_not_score_one_file(tmp_path: Path) -> None:
    scored = ScoredDir(tmp_path)
    with scored.parts("news.csv.csv") as parts, directory_lock(parts.folder, wait=False) as is_free:
        assert not is_free
        with pytest.raises(InputError, match="another process"), scored.parts("news.csv.csv"):
            pass
        with scored.parts("other.csv.csv") as other:
            other.remove()
        parts.remove()
    assert [*tmp_path.iterdir()] == []
