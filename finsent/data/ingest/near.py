"""Near-duplicates: texts with similar MinHash sketches, compared where a band of values agrees.

MinHash is by Broder 1997 (https://doi.org/10.1109/SEQUEN.1997.666900), sketches of a few bits per
value by Li and König 2010 (https://arxiv.org/abs/0910.3349), bands are described by Leskovec et al.
(http://www.mmds.org, ch. 3). `finsent.data.ingest.groups` groups the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rensa import RMinHash

from finsent.data.config import NearConfig

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_SEED = 20_240_601  # of the hash functions; constant, so that versions are reproducible
_SHINGLE_BYTES = 5  # about a word's stem; one changed word in twenty leaves a similarity of 0.8
_MIN_RECALL = 0.99  # of pairs at the threshold that share a band
_MAX_BUCKET_FOR_ALL_PAIRS = 1024  # texts
_MAX_LEADERS = 512  # texts of a larger bucket that are compared with all its texts
_MAX_NEIGHBORS = 64  # near older texts that are returned of each text
_PAIRS_PER_CALL = 1 << 20  # bounds the memory of a comparison
_MAX_BUFFERED_PAIRS = 2_000_000  # before repeated pairs are dropped
_SPLITMIX_STEP = 0x9E3779B97F4A7C15  # the increment of SplitMix64

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
    """Return the number of bands and of values per band, the most that find 99 % at the threshold.

    A pair of similarity s shares one of b bands of r values with probability 1 - (1 - s^r)^b.
    """
    for rows in range(config.permutations, 0, -1):
        bands = config.permutations // rows
        if 1 - (1 - config.threshold**rows) ** bands >= _MIN_RECALL:
            return bands, rows
    return config.permutations, 1


# --- sketches -----------------------------------------------------------------------------------


def entries(texts: pa.Table, config: NearConfig) -> pa.Table:
    """Return one row for each band of each text.

    Args:
        texts: `key` (a hash of the text), `order` (position in the sources: smaller is older),
            `unit`, `excluded` (whether a source has it that must stay unseen), `text` (normalized).

    Returns:
        `band` (uint64, uniformly distributed), `key`, `order`, `unit`, `excluded`, `sketch` (two
        bits per MinHash value). Texts shorter than a shingle have no rows: only equal texts are
        near them.
    """
    hashes, ends = _shingles(texts["text"])
    counts = np.diff(ends)
    has_shingles = np.flatnonzero(counts)
    texts = texts.take(pa.array(has_shingles))
    starts = np.concatenate([[0], np.cumsum(counts[has_shingles])])
    values = _minhash(hashes, starts.astype(np.uint64), config.permutations)
    bands, rows = band_shape(config)
    text_index = pa.array(np.repeat(np.arange(len(has_shingles)), bands))
    columns = {name: texts[name].take(text_index) for name in ("key", "order", "unit", "excluded")}
    sketches = np.repeat(_sketch(values), bands, axis=0)
    sketch = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(sketches.shape[1]), len(sketches), [None, pa.py_buffer(sketches)]
    )
    band = _band_hashes(values, bands, rows).reshape(-1)
    return pa.table({"band": band, **columns, "sketch": sketch})


def _shingles(texts: pa.ChunkedArray) -> tuple[Words, Ints]:
    """Return the hashes of all shingles of the texts' letters and digits, and the texts' ends."""
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
    lengths = np.maximum(np.diff(offsets) - _SHINGLE_BYTES + 1, 0)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if not ends[-1]:
        return np.zeros(0, np.uint64), ends
    starts = np.arange(ends[-1]) + np.repeat(offsets[:-1] - ends[:-1], lengths)
    hashes = np.zeros(len(starts), np.uint64)
    for step in range(_SHINGLE_BYTES):
        hashes = (hashes << np.uint64(8)) | raw[starts + step]
    return _mix(hashes), ends


def _mix(values: Words) -> Words:
    """Apply the finalizer of SplitMix64 (https://doi.org/10.1145/2660193.2660195)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


def _minhash(hashes: Words, ends: Words, permutations: int) -> npt.NDArray[np.uint32]:
    """Return MinHash values, shape (texts, permutations)."""
    if len(ends) == 1:
        return np.zeros((0, permutations), np.uint32)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, ends, permutations, _SEED)
    return np.array(matrix.to_rows(), np.uint32)


def _band_hashes(values: npt.NDArray[np.uint32], bands: int, rows: int) -> Words:
    """Hash the values of each band, shape (texts, bands). The band's number is part of the hash."""
    hashes = np.broadcast_to(np.arange(bands, dtype=np.uint64), (len(values), bands)).copy()
    for row in range(rows):
        hashes = _mix(hashes * np.uint64(_SPLITMIX_STEP) + values[:, row : bands * rows : rows])
    return hashes


def _sketch(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Pack two bits of each value, four to a byte: shape (texts, permutations / 4, rounded up)."""
    mixed = (_mix(values.astype(np.uint64)) & np.uint64(3)).astype(np.uint8)
    mixed = np.pad(mixed, ((0, 0), (0, -values.shape[1] % 4)))
    parts = mixed.reshape(len(mixed), mixed.shape[1] // 4, 4)
    packed = parts[:, :, 0] | parts[:, :, 1] << 2 | parts[:, :, 2] << 4 | parts[:, :, 3] << 6
    return np.ascontiguousarray(packed)


# --- pairs --------------------------------------------------------------------------------------


def find_edges(bands: pa.Table, config: NearConfig) -> pa.Table:
    """Return the pairs of texts that share a band and have similar sketches.

    Of many near texts of one text only the oldest are returned, which is enough for its group.

    Args:
        bands: rows of `entries`; all rows of a band, or none.

    Returns:
        Schema `EDGES`, each pair once, `a` the older text. A text that must stay unseen is older
        than every other text. Two such texts are no pair.
    """
    buckets = _Buckets.of(bands, config)
    codes = [np.zeros(0, np.int64)]
    for pairs in buckets.pairs():
        a, b = pairs.T
        codes.append(_oldest_neighbors(pairs[(a < b) & (b >= buckets.unseen_count)]))
        if sum(map(len, codes)) > _MAX_BUFFERED_PAIRS:
            codes = [_oldest_neighbors(_decode_pairs(np.concatenate(codes)))]
    a, b = _decode_pairs(_oldest_neighbors(_decode_pairs(np.concatenate(codes)))).T
    rows = {"a": pa.array(buckets.row[a]), "b": pa.array(buckets.row[b])}
    columns = {name: bands[name[2:]].take(rows[name[0]]) for name in EDGES.names}
    return pa.table(columns, schema=EDGES)


def _oldest_neighbors(pairs: Ints) -> Ints:
    """Return each pair once, and of each newer text only those with its oldest neighbors.

    Returns:
        Sorted codes: the newer text in the upper 32 bits, the older one in the lower.
    """
    codes = np.unique(pairs[:, 1] << 32 | pairs[:, 0])
    newer = codes >> 32
    starts = np.flatnonzero(np.r_[True, newer[1:] != newer[:-1]][: len(newer)])
    rank = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    return codes[rank < _MAX_NEIGHBORS]


def _decode_pairs(codes: Ints) -> Ints:
    """Return the (older, newer) pairs of codes, shape (pairs, 2)."""
    return np.stack([codes & 0xFFFFFFFF, codes >> 32], axis=1)


@dataclass(frozen=True)
class _Buckets:
    """Texts by the bands that they share. Texts are numbered by age."""

    row: Ints  # one row of each text in the table of bands
    unseen_count: int  # texts that must stay unseen; these are the oldest
    sketches: npt.NDArray[np.uint8]  # of each text
    texts: Ints  # numbers of texts, bucket by bucket, the oldest first
    starts: Ints  # of each bucket in `texts`
    config: NearConfig

    @classmethod
    def of(cls, bands: pa.Table, config: NearConfig) -> _Buckets:
        is_unseen = bands["excluded"].to_numpy()
        _, first_bands, text = np.unique(
            bands["key"].to_numpy(), return_index=True, return_inverse=True
        )
        by_age = np.lexsort((bands["order"].to_numpy()[first_bands], ~is_unseen[first_bands]))
        number = np.empty(len(first_bands), np.int64)
        number[by_age] = np.arange(len(first_bands))
        row = first_bands[by_age]
        text, band = number[text], bands["band"].to_numpy()
        by_bucket = np.lexsort((text, band))
        text, band = text[by_bucket], band[by_bucket]
        starts = np.flatnonzero(np.r_[True, band[1:] != band[:-1]][: len(band)])
        sketches = _unpack_sketches(bands["sketch"])[row]
        return cls(row, int(is_unseen[row].sum()), sketches, text, starts, config)

    def pairs(self) -> Iterator[Ints]:
        """Yield near pairs, the older text first, in arrays of bounded size."""
        sizes = np.diff(np.append(self.starts, len(self.texts)))
        for size in np.unique(sizes[(sizes > 1) & (sizes <= _MAX_BUCKET_FOR_ALL_PAIRS)]).tolist():
            yield from self._all_pairs(self.starts[sizes == size], size)
        is_large = sizes > _MAX_BUCKET_FOR_ALL_PAIRS
        for start, size in zip(
            self.starts[is_large].tolist(), sizes[is_large].tolist(), strict=True
        ):
            yield from self._pairs_with_leaders(self.texts[start : start + size])

    def _all_pairs(self, starts: Ints, size: int) -> Iterator[Ints]:
        """Compare all pairs of the buckets of one size."""
        left, right = np.triu_indices(size, 1)
        step = max(1, _PAIRS_PER_CALL // len(left))
        for first in range(0, len(starts), step):
            buckets = self.texts[starts[first : first + step, None] + np.arange(size)]
            yield self._near_pairs(buckets[:, left].reshape(-1), buckets[:, right].reshape(-1))

    def _pairs_with_leaders(self, bucket: Ints) -> Iterator[Ints]:
        """Compare the texts of a large bucket with those that must stay unseen and with leaders.

        A leader is the oldest text that is near no leader yet. Two texts near the same leader share
        its split, so their own pair is not needed.
        """
        seen = bucket[bucket >= self.unseen_count]
        unmatched = seen
        for text in bucket[: len(bucket) - len(seen)].tolist():
            pairs = self._near_pairs(np.full(len(unmatched), text), unmatched)
            yield pairs
            unmatched = np.setdiff1d(unmatched, pairs[:, 1], assume_unique=True)
        may_lead = np.ones(len(seen), bool)
        for _ in range(_MAX_LEADERS):
            candidates = np.flatnonzero(may_lead)
            if not len(candidates):
                break
            others = np.delete(seen, candidates[0])
            leader = np.full(len(others), seen[candidates[0]])
            pairs = self._near_pairs(np.minimum(leader, others), np.maximum(leader, others))
            yield pairs
            may_lead[candidates[0]] = False
            may_lead[np.isin(seen, pairs)] = False

    def _near_pairs(self, a: Ints, b: Ints) -> Ints:
        is_near = _is_near(self.sketches, a, b, self.config)
        return np.stack([a[is_near], b[is_near]], axis=1)


def _unpack_sketches(sketch: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    sketch = sketch.combine_chunks()
    raw = np.frombuffer(sketch.buffers()[1] or b"", np.uint8).reshape(-1, sketch.type.byte_width)
    return raw[sketch.offset :][: len(sketch)]


def _is_near(
    sketches: npt.NDArray[np.uint8], a: Ints, b: Ints, config: NearConfig
) -> npt.NDArray[np.bool_]:
    """Return whether the estimated similarity of each pair reaches the threshold.

    Two bits of different values agree by chance in one of four cases. So with similarity s,
    agreement = s + (1 - s) / 4.
    """
    is_near = np.zeros(len(a), bool)
    for start in range(0, len(a), _PAIRS_PER_CALL):
        pairs_of_call = slice(start, start + _PAIRS_PER_CALL)
        bits = sketches[a[pairs_of_call]] ^ sketches[b[pairs_of_call]]
        differ = np.bitwise_and(bits | bits >> 1, np.uint8(0x55))
        agreement = 1 - np.bitwise_count(differ).sum(1, dtype=np.int64) / config.permutations
        is_near[pairs_of_call] = (agreement - 0.25) / 0.75 >= config.threshold
    return is_near
