"""Random numbers as a function of seed, number and use, so that rows can be made in any order.

The function is SplitMix64 (Steele et al. 2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


def hash_words(values: Ints, seed: int, use: int) -> Words:
    """Return 64 random bits for each value. Each seed and each use gives other bits."""
    state = np.uint64((seed * 0xD1342543DE82EF95 + use * 0xDA942042E4DD58B5) % 2**64)
    bits = (values.astype(np.uint64) + state) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def below(words: Words, limit: int | Ints) -> Ints:
    """Return integers from 0 to `limit` - 1, chosen by the high 32 bits of the words."""
    return ((words >> np.uint64(32)).astype(np.int64) * limit) >> 32
