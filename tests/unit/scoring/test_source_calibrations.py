"""Calibrations of scored rows by their source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from finsent.config import check
from finsent.errors import ConfigError
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.scoring.score import Scorer, Tagged
from finsent.settings import Settings
from tests.unit.models import TEXTS, domain_content
from tests.unit.scoring.scored_files import find, score


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_each_row_has_the_calibration_of_its_source(
    scorer: Scorer, tmp_path: Path, format: str
) -> None:
    tags = ["x.com", "", "news", "y.com", "x.com", "news", "x.com"]
    table = pa.table({"text": TEXTS, "from": tags})
    path = tmp_path / f"a.{format}"
    if format == "jsonl":
        path.write_bytes(b"\n".join(orjson.dumps(row) for row in table.to_pylist()))
    elif format == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    domain = DomainCalibration.of(domain_content(threshold=1.0))
    tagged = Tagged("from", {"x.com": domain, "news": None})
    [file] = find(path, carried=["from"])
    target = score(file, replace(scorer, tagged=tagged), tmp_path)
    answers = pq.read_table(target).to_pylist()
    engine = scorer.engine
    logits = engine.logits(TEXTS)
    own = engine.predictions(logits)
    calibrated = engine.predictions(logits, domain.on(engine.calibration))
    assert [answer.label for answer in own] != [answer.label for answer in calibrated]
    for row, tag, ours, theirs in zip(answers, tags, own, calibrated, strict=True):
        if tag == "y.com":
            assert (row["label"], row["calibration"]) == (None, None)
            assert row["fault"] == "unknown_source: 'y.com'"
            continue
        expected = theirs if tag == "x.com" else ours
        assert (row["label"], row["score"]) == (
            expected.label,
            pytest.approx(expected.score, abs=1e-6),
        )
        assert row["calibration"] == ("tweets" if tag == "x.com" else None)
        assert row["abstained"] == expected.abstained == (tag == "x.com")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"source_column": "from"}, "calibrations: goes with source_column"),
        ({"calibrations": {"a": "b"}}, "calibrations: goes with source_column"),
        (
            {"source_column": "from", "calibrations": ["b"], "calibration": "c"},
            "source_column='from': calibration='c' is for all rows",
        ),
        ({"source_column": "from", "calibrations": {"a": "B C"}}, "calibrations.a='B C'"),
    ],
)
def test_calibrations_are_given_in_one_way(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check(Settings, {"predict": values})
