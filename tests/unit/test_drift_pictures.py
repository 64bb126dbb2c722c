"""Pictures of the drift monitor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finsent.monitoring.monitor import DriftMonitor
from finsent.monitoring.pictures import drift_pictures
from finsent.monitoring.reference import build_profile
from finsent.monitoring.rows import Rows
from finsent.reports.pictures import draw_all


def rows(seed: int, mix: list[float], count: int) -> Rows:
    labels = np.random.default_rng(seed).choice(["negative", "neutral", "$x$"], count, p=mix)
    return Rows(count, {"label": list(labels)})


def test_pictures_of_a_monitor_with_and_without_alarms(tmp_path: Path) -> None:
    monitor = DriftMonitor(build_profile(rows(0, [0.2, 0.5, 0.3], 500)))
    calm = draw_all(drift_pictures(), monitor, tmp_path / "calm")
    for seed in range(10):
        monitor.update(rows(seed, [0.6, 0.1, 0.3], 50))
    assert monitor.alarms()
    alarmed = draw_all(drift_pictures(), monitor, tmp_path / "alarmed")
    for name in ("evidence", "shares"):
        assert calm[name].read_bytes()[:4] == b"\x89PNG"
        assert alarmed[name].read_bytes() != calm[name].read_bytes()
