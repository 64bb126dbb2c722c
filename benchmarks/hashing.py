"""Random numbers as a function of a seed, a number and a use, for rows that are made in any order.

SplitMix64, Steele et al. 2014.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


def hash_words(values: Ints, seed: int, use: int) -> Words:
    """Return 64 random bits for each value, others for each seed and use."""
    state = np.uint64((seed * 0xD1342543DE82EF95 + use * 0xDA942042E4DD58B5) % 2**64)
    z = (values.astype(np.uint64) + state) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def below(words: Words, limit: int | Ints) -> Ints:
    """Return numbers from 0 to below `limit`, by the high bits."""
    return ((words >> np.uint64(32)).astype(np.int64) * limit) >> 32
