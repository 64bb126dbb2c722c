"""Changes of the prediction log are found and located."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from finsent.prediction_log import verify
from finsent.storage import Location
from tests.unit.prediction_log.tampering import KINDS, ROWS, SEGMENTS, check_tampering, write_log


@pytest.fixture
def root(tmp_path: Path) -> Location:
    root = Location.at(tmp_path)
    write_log(root)
    return root


def test_an_unchanged_log_has_no_problems(root: Location) -> None:
    verification = verify(root)
    assert (verification.segments, verification.rows) == (2 * SEGMENTS, 2 * SEGMENTS * ROWS)
    assert verification.problems == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_tampering_is_found_and_located(root: Location, kind: str) -> None:
    check_tampering(root, kind, random.Random(kind))
    assert verify(root).problems == ()
