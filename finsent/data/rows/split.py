"""Which split a row belongs to: a hash of what must stay together, never of the other rows."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from finsent.data.config import SplitConfig

SPLITS = ("train", "validation", "test")


def split_of(units: npt.NDArray[np.uint64], salt: str, config: SplitConfig) -> npt.NDArray[np.int8]:
    """The split of each unit, as a position in `SPLITS`.

    A unit's place on the line from 0 to 1 is its hash mixed with the salt's (the finalizer of
    SplitMix64, https://doi.org/10.1145/2660193.2660195); the shares cut the line.

    Args:
        units: hashes of what must not be divided (a text, a group of texts, a company); with a time
            split the position itself.
    """
    if config.time.column:
        return units.astype(np.int8)
    digest = hashlib.blake2b(salt.encode(), digest_size=8).digest()
    mixed = units ^ np.uint64(int.from_bytes(digest, "big"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    place = mixed / 2.0**64
    bounds = np.array([config.train, config.train + config.validation])
    return np.searchsorted(bounds, place, side="right").astype(np.int8)
