"""Near-duplicates: MinHash sketches of the texts' shingles, compared where bands of them agree.

Broder 1997 (https://doi.org/10.1109/SEQUEN.1997.666900) for MinHash, Li and König 2010
(https://arxiv.org/abs/0910.3349) for sketches of a few bits a value, Leskovec et al.
(http://www.mmds.org, ch. 3) for bands. `finsent.data.ingest.groups` groups the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.config import NearConfig

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_SEED = 20_240_601  # of the hash functions; a constant, so that versions are the same anywhere
_SHINGLE = 5  # bytes: about a word's stem; one changed word of twenty leaves 0.8 in common
_RECALL = 0.99  # of pairs at the threshold that share a band
_ALL_PAIRS = 1024  # texts of a bucket up to which each is compared with each
_LEADERS = 512  # of a larger bucket: how many of its texts all others are compared with
_NEIGHBOURS = 64  # near older texts that are told of each text
_PAIRS = 1 << 20  # compared at once
_FOLD = 2_000_000  # edges that pile up before repeated ones are dropped

EDGES = pa.schema(
    [
        ("a_key", pa.uint64()),  # the older text
        ("a_order", pa.uint64()),
        ("a_unit", pa.uint64()),
        ("a_excluded", pa.bool_()),
        ("b_key", pa.uint64()),
        ("b_order", pa.uint64()),
        ("b_unit", pa.uint64()),
    ]
)


def band_shape(config: NearConfig) -> tuple[int, int]:
    """Bands, and MinHash values in each: the longest bands that still find 99 % at the threshold.

    A pair of similarity s shares one of b bands of r values with probability 1 - (1 - s^r)^b.
    """
    for rows in range(config.permutations, 0, -1):
        bands = config.permutations // rows
        if 1 - (1 - config.threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return config.permutations, 1


# --- sketches -----------------------------------------------------------------------------------


def entries(texts: pa.Table, config: NearConfig) -> pa.Table:
    """One row for each band of each text.

    Args:
        texts: `key` (a hash of the text), `order` (position in the sources: smaller is older),
            `unit`, `excluded` (of a source that must stay unseen), `text` (normalized).

    Returns:
        `band` (uint64, uniformly distributed), `key`, `order`, `unit`, `excluded`, `sketch` (two
        bits a MinHash value). Texts of less than a shingle have no rows: only equal ones are near.
    """
    hashes, ends = _shingles(texts["text"])
    counts = np.diff(ends)
    which = np.flatnonzero(counts)
    texts = texts.take(pa.array(which))
    starts = np.concatenate([[0], np.cumsum(counts[which])])
    values = _minhash(hashes, starts.astype(np.uint64), config.permutations)
    bands, rows = band_shape(config)
    place = np.repeat(np.arange(len(which)), bands)
    carried = ("key", "order", "unit", "excluded")
    found = {name: texts[name].take(pa.array(place)) for name in carried}
    sketch = _sketch(values)
    width = sketch.shape[1]
    packed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(place), [None, pa.py_buffer(np.repeat(sketch, bands, axis=0))]
    )
    return pa.table({"band": _bands(values, bands, rows).reshape(-1), **found, "sketch": packed})


def _shingles(texts: pa.ChunkedArray) -> tuple[Words, Ints]:
    """Hashes of every run of five bytes of each text's letters and figures; ends of the texts."""
    plain = pc.utf8_lower(texts)
    plain = pc.replace_substring_regex(plain, r"https?://\S*|\bt\.co/\S*|^rt @\w+", " ")
    plain = pc.utf8_trim(pc.replace_substring_regex(plain, r"[^\p{L}\p{N}]+", " "), " ")
    if isinstance(plain, pa.ChunkedArray):
        plain = plain.combine_chunks()
    count = len(plain)
    offsets = np.frombuffer(plain.buffers()[1], np.int32)[plain.offset :][: count + 1]
    offsets = offsets.astype(np.int64)
    raw = np.frombuffer(plain.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    offsets -= offsets[0]
    lengths = np.maximum(np.diff(offsets) - _SHINGLE + 1, 0)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if not ends[-1]:
        return np.zeros(0, np.uint64), ends
    starts = np.arange(ends[-1]) + np.repeat(offsets[:-1] - ends[:-1], lengths)
    hashes = np.zeros(len(starts), np.uint64)
    for step in range(_SHINGLE):
        hashes = (hashes << np.uint64(8)) | raw[starts + step]
    return _mix(hashes), ends


def _mix(values: Words) -> Words:
    """The finalizer of SplitMix64 (https://doi.org/10.1145/2660193.2660195)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


def _minhash(hashes: Words, ends: Words, permutations: int) -> npt.NDArray[np.uint32]:
    """MinHash values, (texts, permutations)."""
    from rensa import RMinHash

    if len(ends) == 1:
        return np.zeros((0, permutations), np.uint32)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, ends, permutations, _SEED)
    return np.array(matrix.to_rows(), np.uint32)


def _bands(values: npt.NDArray[np.uint32], bands: int, rows: int) -> Words:
    """A hash of each band's values, (texts, bands); differs between bands of equal values."""
    found = np.broadcast_to(np.arange(bands, dtype=np.uint64), (len(values), bands)).copy()
    for row in range(rows):
        found = _mix(found * np.uint64(0x9E3779B97F4A7C15) + values[:, row : bands * rows : rows])
    return found


def _sketch(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """The two lowest bits of each value, four to a byte: (texts, permutations / 4, rounded up)."""
    mixed = (_mix(values.astype(np.uint64)) & np.uint64(3)).astype(np.uint8)
    mixed = np.pad(mixed, ((0, 0), (0, -values.shape[1] % 4)))
    parts = mixed.reshape(len(mixed), mixed.shape[1] // 4, 4)
    packed = parts[:, :, 0] | parts[:, :, 1] << 2 | parts[:, :, 2] << 4 | parts[:, :, 3] << 6
    return np.ascontiguousarray(packed)


# --- pairs --------------------------------------------------------------------------------------


def find_edges(found: pa.Table, config: NearConfig) -> pa.Table:
    """The pairs of texts that share a band and whose sketches say that they are near.

    Of a text's many near ones only the oldest few are told: enough for its group.

    Args:
        found: rows of `entries`; all of a band, or none.

    Returns:
        Schema `EDGES`, each pair once, `a` the older. A text that must stay unseen is older than
        every other; two of them are no pair.
    """
    buckets = _Buckets.of(found, config)
    codes = [np.zeros(0, np.int64)]
    for pairs in buckets.pairs():
        a, b = pairs.T
        codes.append(_oldest(pairs[(a < b) & (b >= buckets.unseen)]))
        if sum(map(len, codes)) > _FOLD:
            codes = [_oldest(_decoded(np.concatenate(codes)))]
    a, b = _decoded(_oldest(_decoded(np.concatenate(codes)))).T
    rows = {"a": pa.array(buckets.row[a]), "b": pa.array(buckets.row[b])}
    columns = {name: found[name[2:]].take(rows[name[0]]) for name in EDGES.names}
    return pa.table(columns, schema=EDGES)


def _oldest(pairs: Ints) -> Ints:
    """Each pair once, of each newer text those with its oldest few; sorted, as numbers."""
    codes = np.unique(pairs[:, 1] << 32 | pairs[:, 0])
    newer = codes >> 32
    starts = np.flatnonzero(np.r_[True, newer[1:] != newer[:-1]][: len(newer)])
    rank = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    return codes[rank < _NEIGHBOURS]


def _decoded(codes: Ints) -> Ints:
    return np.stack([codes & 0xFFFFFFFF, codes >> 32], axis=1)


@dataclass(frozen=True)
class _Buckets:
    """Texts, numbered by age, by the bands that they share."""

    row: Ints  # a row of each text in the table of entries
    unseen: int  # how many texts must stay unseen; they are the oldest
    sketches: npt.NDArray[np.uint8]  # of each text
    texts: Ints  # numbers, bucket by bucket, the oldest first
    starts: Ints  # of each bucket
    config: NearConfig

    @classmethod
    def of(cls, found: pa.Table, config: NearConfig) -> _Buckets:
        unseen = found["excluded"].to_numpy()
        _, first, text = np.unique(found["key"].to_numpy(), return_index=True, return_inverse=True)
        by_age = np.lexsort((found["order"].to_numpy()[first], ~unseen[first]))
        age = np.empty(len(first), np.int64)
        age[by_age] = np.arange(len(first))
        row = first[by_age]
        text, band = age[text], found["band"].to_numpy()
        rows = np.lexsort((text, band))
        text, band = text[rows], band[rows]
        starts = np.flatnonzero(np.r_[True, band[1:] != band[:-1]][: len(band)])
        sketches = _sketch_rows(found["sketch"])[row]
        return cls(row, int(unseen[row].sum()), sketches, text, starts, config)

    def pairs(self) -> Iterator[Ints]:
        """Near pairs, the older text first; pieces of bounded size."""
        sizes = np.diff(np.append(self.starts, len(self.texts)))
        for size in np.unique(sizes[(sizes > 1) & (sizes <= _ALL_PAIRS)]).tolist():
            yield from self._all_pairs(self.starts[sizes == size], size)
        large = sizes > _ALL_PAIRS
        for start, size in zip(self.starts[large].tolist(), sizes[large].tolist(), strict=True):
            yield from self._led(self.texts[start : start + size])

    def _all_pairs(self, starts: Ints, size: int) -> Iterator[Ints]:
        """Every pair of buckets of one size."""
        left, right = np.triu_indices(size, 1)
        step = max(1, _PAIRS // len(left))
        for first in range(0, len(starts), step):
            buckets = self.texts[starts[first : first + step, None] + np.arange(size)]
            yield self._near_pairs(buckets[:, left].reshape(-1), buckets[:, right].reshape(-1))

    def _led(self, bucket: Ints) -> Iterator[Ints]:
        """Pairs of a large bucket: what must stay unseen with all others, and leaders with all.

        A leader is the oldest text that is near to no leader yet. Two texts near the same leader
        share its split, so their own pair is not needed.
        """
        others = bucket[bucket >= self.unseen]
        apart = others
        for text in bucket[: len(bucket) - len(others)].tolist():
            pairs = self._near_pairs(np.full(len(apart), text), apart)
            yield pairs
            apart = np.setdiff1d(apart, pairs[:, 1], assume_unique=True)
        free = np.ones(len(others), bool)
        for _ in range(_LEADERS):
            waiting = np.flatnonzero(free)
            if not len(waiting):
                break
            rest = np.delete(others, waiting[0])
            leader = np.full(len(rest), others[waiting[0]])
            pairs = self._near_pairs(np.minimum(leader, rest), np.maximum(leader, rest))
            yield pairs
            free[waiting[0]] = False
            free[np.isin(others, pairs)] = False

    def _near_pairs(self, a: Ints, b: Ints) -> Ints:
        near = _near(self.sketches, a, b, self.config)
        return np.stack([a[near], b[near]], axis=1)


def _sketch_rows(sketch: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    sketch = sketch.combine_chunks()
    raw = np.frombuffer(sketch.buffers()[1] or b"", np.uint8).reshape(-1, sketch.type.byte_width)
    return raw[sketch.offset :][: len(sketch)]


def _near(
    sketches: npt.NDArray[np.uint8], a: Ints, b: Ints, config: NearConfig
) -> npt.NDArray[np.bool_]:
    """Whether the estimated similarity reaches the threshold.

    Two bits agree by chance once in four times: agreement = s + (1 - s) / 4.
    """
    near = np.zeros(len(a), bool)
    for start in range(0, len(a), _PAIRS):  # bounds the memory of a large bucket
        part = slice(start, start + _PAIRS)
        bits = sketches[a[part]] ^ sketches[b[part]]
        differ = np.bitwise_and(bits | bits >> 1, np.uint8(0x55))
        agreement = 1 - np.bitwise_count(differ).sum(1, dtype=np.int64) / config.permutations
        near[part] = (agreement - 0.25) / 0.75 >= config.threshold
    return near
