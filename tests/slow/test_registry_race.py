"""Five processes race 1,000 promotions and rollbacks of one alias on a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registry_race import check_race


@pytest.mark.parametrize("kind", ["directory", "bucket"])
def test_a_thousand_changes_have_one_order(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    check_race(kind, tmp_path, request, processes=5, count=200)
