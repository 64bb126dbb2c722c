"""The drift monitor: references, alarms, sources, seasons, state."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from finsent.errors import InputError
from finsent.monitoring.cells import bin_cells, bin_edges, category_cells, duplicate_counts
from finsent.monitoring.monitor import DriftMonitor, MonitorState
from finsent.monitoring.reference import Profile, build_profile
from finsent.monitoring.rows import Rows, months

MIX = (0.2, 0.5, 0.3)


def make_rows(
    seed: int,
    count: int,
    mix: tuple[float, ...] = MIX,
    center: float = 0.0,
    repeated: float = 0.0,
    source: str | None = None,
) -> Rows:
    random = np.random.default_rng(seed)
    keys = np.where(random.random(count) < repeated, -1, np.arange(count))
    return Rows(
        count,
        {"label": [("a", "b", "c", "d")[i] for i in random.choice(len(mix), count, p=mix)]},
        {"confidence": random.beta(5, 2, count)},
        random.normal(size=(count, 4)) + center,
        [str(key) for key in keys],
        [source] * count if source else [("wire", "web")[i % 2] for i in range(count)],
    )


@pytest.fixture(scope="module")
def profile() -> Profile:
    return build_profile(make_rows(0, 1_500))


def fired(monitor: DriftMonitor) -> set[tuple[str, str | None]]:
    return {(alarm.signal, alarm.source) for alarm in monitor.alarms()}


def test_a_profile_has_all_signals_of_all_sources(profile: Profile) -> None:
    names = {(signal.signal, signal.source) for signal in profile.signals}
    columns = ("label", "confidence", "topic", "novelty", "duplicates")
    expected = {(name, source) for name in columns for source in (None, "wire", "web")}
    assert names == expected | {("source", None)}
    label = profile.signals[0]
    assert label.names == ["a", "b", "c", "other"]
    assert sum(label.counts[0]) == 1_200  # without the fifth that defines the bets


def test_a_stream_like_the_reference_raises_no_alarm(profile: Profile) -> None:
    monitor = DriftMonitor(profile)
    monitor.update(make_rows(1, 2_000))
    assert monitor.alarms() == []


@pytest.mark.parametrize(
    ("rows", "signal"),
    [
        (lambda: make_rows(2, 800, (0.45, 0.25, 0.3)), "label"),
        (lambda: make_rows(2, 800, (0.15, 0.45, 0.25, 0.15)), "label"),
        (lambda: make_rows(2, 400, center=3.0), "novelty"),
        (lambda: make_rows(2, 800, repeated=0.5), "duplicates"),
        (lambda: make_rows(2, 400, source="mail"), "source"),
    ],
    ids=["label mix", "unknown label", "content", "flood", "new source"],
)
def test_a_shift_names_its_signal(profile: Profile, rows: Callable[[], Rows], signal: str) -> None:
    monitor = DriftMonitor(profile)
    monitor.update(rows())
    assert (signal, None) in fired(monitor)
    alarm = next(alarm for alarm in monitor.alarms() if alarm.signal == signal)
    assert abs(alarm.recent_share - alarm.reference_share) > 0.05
    assert alarm.at_row <= monitor.rows


def test_a_shift_of_one_source_names_the_source(profile: Profile) -> None:
    monitor = DriftMonitor(profile)
    monitor.update(make_rows(3, 900, (0.6, 0.1, 0.3), source="web"))
    assert ("label", "web") in fired(monitor)
    assert ("label", "wire") not in fired(monitor)


def test_state_continues_where_the_monitor_ended(profile: Profile, tmp_path: Path) -> None:
    rows = make_rows(4, 730, (0.4, 0.3, 0.3))
    at_once = DriftMonitor(profile)
    at_once.update(rows)
    first_monitor = DriftMonitor(profile)
    first_monitor.update(rows.selected(range(333)))
    first_monitor.state().write(tmp_path / "state.json")
    profile.write(tmp_path / "profile.json")
    second = DriftMonitor(
        Profile.read(tmp_path / "profile.json"), state=MonitorState.read(tmp_path / "state.json")
    )
    second.update(rows.selected(range(333, 730)))
    for signal, other in zip(at_once.state().signals, second.state().signals, strict=True):
        assert signal.counts == other.counts
        assert signal.staked == pytest.approx(other.staked, rel=1e-9)
        assert signal.peak == pytest.approx(other.peak, rel=1e-9)
        assert signal.recent == pytest.approx(other.recent)
    assert fired(at_once) == fired(second)


def test_an_alarm_stays_after_the_end_of_its_horizon(profile: Profile) -> None:
    monitor = DriftMonitor(profile, horizon=1_000)
    monitor.update(make_rows(5, 990, (0.5, 0.2, 0.3)))
    peak = monitor.alarms()[0].peak
    monitor.update(make_rows(6, 100))
    assert monitor.alarms()[0].peak >= peak
    assert monitor.alarms()[0].at_row in (500, 990)


def test_the_state_does_not_grow(profile: Profile) -> None:
    monitor = DriftMonitor(profile)
    for seed in range(300):
        monitor.update(make_rows(seed, 3))
    assert all(len(points) <= 256 for points in monitor.histories().values())
    assert all(len(signal.pending_keys) < 25 for signal in monitor.state().signals)


def test_seasons_compare_rows_with_their_season() -> None:
    """The mix differs by season; only a monitor without seasons calls a season a drift."""

    def seasonal(seed: int, count: int, season: str) -> Rows:
        rows = make_rows(seed, count, (0.5, 0.2, 0.3) if season == "12" else MIX)
        return Rows(count, {"label": rows.categories["label"]}, seasons=[season] * count)

    parts = [seasonal(0, 1_000, "06"), seasonal(1, 1_000, "12")]
    labels = [label for batch in parts for label in batch.categories["label"]]
    reference = Rows(2_000, {"label": labels}, seasons=["06"] * 1_000 + ["12"] * 1_000)
    winter = seasonal(7, 900, "12")
    with_seasons = DriftMonitor(build_profile(reference))
    with_seasons.update(winter)
    assert with_seasons.alarms() == []
    without = DriftMonitor(build_profile(Rows(2_000, {"label": labels})))
    without.update(winter)
    assert fired(without) == {("label", None)}
    with_seasons.update(seasonal(3, 900, "06"))
    wrong = Rows(900, {"label": winter.categories["label"]}, seasons=["06"] * 900)
    with_seasons.update(wrong)
    assert fired(with_seasons) == {("label", None)}
    with pytest.raises(InputError, match="seasons=null"):
        with_seasons.update(Rows(1, {"label": ["a"]}))


def test_months_need_a_year() -> None:
    start = datetime(2026, 1, 31)
    year = [start, start + timedelta(days=365)]
    assert months([datetime(2027, 3, 1)], year) == ["03"]
    assert months([start], [start, start + timedelta(days=364)]) is None


def test_cells_by_hand() -> None:
    assert category_cells(["b", "x"], ["a", "b"]).tolist() == [1, 2]
    assert bin_cells(np.array([0.0, 0.1, 1.0]), [0.0, 0.5]).tolist() == [0, 1, 2]
    low, same = bin_edges(np.full(100, 2.0))
    assert low < same == 2.0
    keys = ["x"] * 3 + [str(i) for i in range(22)] + ["x"] * 24
    assert duplicate_counts(keys).tolist() == [2]


def test_bad_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="label=1 values: 2 rows"):
        Rows(2, {"label": ["a"]})
    with pytest.raises(ValueError, match="confidence: a value is not finite"):
        Rows(1, numbers={"confidence": np.array([np.nan])})
    monitor = DriftMonitor(build_profile(make_rows(0, 300)))
    with pytest.raises(InputError, match="confidence=null"):
        monitor.update(Rows(1, {"label": ["a"]}))
    with pytest.raises(InputError, match="reference=10 rows"):
        build_profile(make_rows(0, 10))


def test_a_state_of_another_monitor_is_refused(profile: Profile) -> None:
    state = DriftMonitor(build_profile(Rows(300, {"label": ["a", "b"] * 150}))).state()
    with pytest.raises(InputError, match=r"state.signals=1: this monitor has 16"):
        DriftMonitor(profile, state=state)
    own = DriftMonitor(profile).state()
    with pytest.raises(InputError, match=r"state.horizon=100000: this monitor has 10"):
        DriftMonitor(profile, horizon=10, state=own)
    with pytest.raises(InputError, match=r"state.seed=0: this monitor has 1"):
        DriftMonitor(profile, seed=1, state=own)
    with pytest.raises(InputError, match=r"state.signals=label: damaged, or of another reference"):
        DriftMonitor(build_profile(make_rows(9, 1_500)), state=own)


@pytest.mark.parametrize(
    "damage",
    [
        {"rows": 41},
        {"staked": [1.0]},  # numpy would give each alternative this wealth
        {"recent": [1.0]},
        {"peak": math.nan},
        {"counts": [[1, 2], [3]]},
    ],
)
def test_a_damaged_state_is_refused(profile: Profile, damage: dict[str, object]) -> None:
    monitor = DriftMonitor(profile)
    monitor.update(make_rows(4, 40))
    state = monitor.state()
    damaged_signal = state.signals[0].replaced(**damage)
    with pytest.raises(InputError, match=r"state.signals=label: damaged"):
        DriftMonitor(profile, state=state.replaced(signals=[damaged_signal, *state.signals[1:]]))
