"""Assign rows to splits by a hash of what must stay together, independent of other rows."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from finsent.data.config import SplitConfig

SPLITS = ("train", "validation", "test")


def split_of(units: npt.NDArray[np.uint64], salt: str, config: SplitConfig) -> npt.NDArray[np.int8]:
    """Return the split of each unit, as a position in `SPLITS`.

    A unit's hash is mixed with the salt's (by the finalizer of SplitMix64,
    https://doi.org/10.1145/2660193.2660195) to a number from 0 to 1. The splits are ranges of it.

    Args:
        units: hashes of what must not be divided (a text, a group of texts, a company). With a time
            split the positions themselves.
    """
    if config.time.column:
        return units.astype(np.int8)
    digest = hashlib.blake2b(salt.encode(), digest_size=8).digest()
    mixed = units ^ np.uint64(int.from_bytes(digest, "big"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    number = mixed / 2.0**64
    bounds = np.array([config.train, config.train + config.validation])
    return np.searchsorted(bounds, number, side="right").astype(np.int8)
