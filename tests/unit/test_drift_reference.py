"""The reference of drift: which rows define topics, and which rows the test compares with."""

from __future__ import annotations

import numpy as np
import pytest

from finsent.errors import InputError
from finsent.monitoring.monitor import DriftMonitor
from finsent.monitoring.reference import _Builder, build_profile
from finsent.monitoring.rows import Rows


def make_rows(seed: int, count: int) -> Rows:
    random = np.random.default_rng(seed)
    return Rows(
        count,
        numbers={"id": np.arange(count, dtype=np.float64)},
        embeddings=random.normal(size=(count, 4)),
        sources=[("wire", "web", "mail")[i % 3] for i in range(count)],
    )


def test_no_row_that_defines_the_topics_is_tested() -> None:
    rows = make_rows(0, 900)
    builder = _Builder(rows, [], np.random.default_rng(1))
    topic_rows = {*builder.split(None)[0].numbers["id"]}
    for source in ("wire", "web", "mail"):
        fit, test = builder.split(source)
        tested = {*test.numbers["id"]}
        assert fit.count >= 60
        assert not tested & topic_rows
        assert {*fit.numbers["id"]} | tested == {*rows.numbers["id"][rows.indices_of(source)]}


def test_embeddings_that_are_no_numbers_are_refused() -> None:
    embeddings = np.zeros((3, 4))
    embeddings[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"embeddings: a value is not finite"):
        Rows(3, embeddings=embeddings)


def test_embeddings_of_another_encoder_are_refused() -> None:
    monitor = DriftMonitor(build_profile(make_rows(0, 300)))
    rows = Rows(
        2, numbers={"id": np.zeros(2)}, embeddings=np.zeros((2, 8)), sources=["wire", "web"]
    )
    with pytest.raises(InputError, match=r"embeddings=8 dimensions: the reference has 4"):
        monitor.update(rows)
    assert monitor.rows == 0
