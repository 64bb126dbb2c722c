"""1,000 random changes of the prediction log are found and located."""

from __future__ import annotations

import random
from pathlib import Path

from finsent.prediction_log import verify
from finsent.storage import Location
from tests.unit.prediction_log.tampering import KINDS, check_tampering, write_log


def test_each_of_1000_tamperings_is_found_and_located(tmp_path: Path) -> None:
    root, generator = Location.at(tmp_path), random.Random(7)
    write_log(root)
    for _ in range(1000):
        check_tampering(root, generator.choice(KINDS), generator)
    assert verify(root).problems == ()
