"""Five processes race 1,000 promotions and rollbacks of one alias on a real S3 server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.registry_race import check_history, local_root, race, read


@pytest.mark.parametrize("kind", ["directory", "bucket"])
def test_a_thousand_changes_have_one_order(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = local_root(tmp_path)
    if kind == "bucket":
        root = request.getfixturevalue("s3_root")
    done = race(root, dict(os.environ), processes=5, count=200)
    check_history(read(root), done)
