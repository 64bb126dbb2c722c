"""An ingest that is killed at each of its steps; one step is in tests/e2e/test_killed_ingest.py."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.test_killed_ingest import STEPS, check_killed_ingest


def test_a_kill_at_any_step_leaves_the_old_version_complete(project: Path) -> None:
    check_killed_ingest(project, rows=90_000, steps=[*STEPS])
