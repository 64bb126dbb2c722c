"""Assignment of units to splits: stable, in the configured fractions, changed by the salt only."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.data.config import SplitConfig, TimeSplitConfig
from finsent.data.rows.split import SPLITS, split_of
from tests.properties import examples

TRAIN, VALIDATION, TEST = range(3)
COUNT = 100_000
UNITS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50)


def places(units: list[int], salt: str = "finsent", **shares: float) -> list[int]:
    split_numbers: list[int] = split_of(
        np.array(units, np.uint64), salt, SplitConfig(**shares)
    ).tolist()
    return split_numbers


def many(kind: str) -> npt.NDArray[np.uint64]:
    if kind == "hashes":
        return np.random.default_rng(1).integers(0, 2**64 - 1, COUNT, np.uint64)
    return np.arange(COUNT, dtype=np.uint64) << np.uint64(0 if kind == "counted" else 44)


def near(measured: float, share: float) -> bool:
    """Within four standard deviations of what `COUNT` draws give."""
    return abs(measured - share) < 4 * math.sqrt(share * (1 - share) / COUNT)


def test_a_row_keeps_its_split_in_every_release() -> None:
    assert SPLITS == ("train", "validation", "test")
    expected = {
        0: TRAIN,
        9: TEST,
        17: TEST,
        20: VALIDATION,
        25: VALIDATION,
        0x0123456789ABCDEF: TRAIN,
        2**64 - 1: TEST,
    }
    assert places(list(expected)) == list(expected.values())
    assert places([0], salt="other") == [VALIDATION]


@pytest.mark.parametrize("kind", ["hashes", "counted", "high bits"])
@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.7, 0.2, 0.1), (0.34, 0.33, 0.33)])
def test_splits_have_their_shares(kind: str, shares: tuple[float, float, float]) -> None:
    config = SplitConfig(**dict(zip(SPLITS, shares, strict=True)))
    split = split_of(many(kind), "finsent", config)
    measured = np.bincount(split, minlength=3) / COUNT
    assert all(near(*pair) for pair in zip(measured.tolist(), shares, strict=True)), measured


def test_a_salt_moves_rows_and_the_same_salt_does_not() -> None:
    first, again, other = (split_of(many("hashes"), s, SplitConfig()) for s in ("a", "a", "b"))
    assert (first == again).all()
    assert near(float((first != other).mean()), 1 - (0.8**2 + 0.1**2 + 0.1**2))


@examples(50)
@given(UNITS, UNITS)
def test_rows_stay_in_their_split_when_others_are_added(old: list[int], new: list[int]) -> None:
    assert places(new + old)[len(new) :] == places(old)


@examples(50)
@given(UNITS)
def test_a_larger_fraction_removes_no_row_from_a_split(units: list[int]) -> None:
    before = places(units, train=0.6, validation=0.2, test=0.2)
    after = places(units, train=0.7, validation=0.2, test=0.1)
    assert all(b >= a for b, a in zip(before, after, strict=True))  # towards train, never away


def test_no_units_have_no_splits() -> None:
    assert places([]) == []


def test_a_time_split_passes_positions_through() -> None:
    time = TimeSplitConfig(column="day", validation_from="2024-01-01", test_from="2024-07-01")
    positions = np.array([2, 0, 1, 1, 0], np.uint64)
    for salt in ("finsent", "other"):
        split = split_of(positions, salt, SplitConfig(time=time))
        assert split.tolist() == [2, 0, 1, 1, 0]
        assert split.dtype == np.int8
