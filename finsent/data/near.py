"""Near-duplicates: MinHash sketches of the texts' shingles, compared where bands of them agree.

Broder 1997 (https://doi.org/10.1109/SEQUEN.1997.666900) for MinHash, Li and König 2010
(https://arxiv.org/abs/0910.3349) for sketches of a few bits a value, Leskovec et al.
(http://www.mmds.org, ch. 3) for bands. Groups depend on the age of texts: a newer text never
changes what an older one belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
_ALL_PAIRS = 64  # texts of a bucket up to which each is compared with each
_LEADERS = 256  # of a larger bucket: how many of its oldest texts all others are compared with
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
            `unit`, `excluded` (of a source that must stay unseen), `text` (normalised).

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
    """The finaliser of SplitMix64 (https://doi.org/10.1145/2660193.2660195)."""
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

    Args:
        found: rows of `entries`; all of a band, or none.

    Returns:
        Schema `EDGES`, each pair once, `a` the older. A text that must stay unseen is older than
        every other; two of them are no pair.
    """
    unseen = found["excluded"].to_numpy()
    rows = np.lexsort((found["order"].to_numpy(), ~unseen, found["band"].to_numpy()))
    band = found["band"].to_numpy()[rows]
    starts = np.flatnonzero(np.r_[True, band[1:] != band[:-1]][: len(band)])
    sizes = np.diff(np.append(starts, len(band)))
    sketches = _sketch_rows(found["sketch"])
    pairs = [np.zeros((0, 2), np.int64)]
    for size in np.unique(sizes[(sizes > 1) & (sizes <= _ALL_PAIRS)]).tolist():
        buckets = rows[starts[sizes == size][:, None] + np.arange(size)]
        left, right = np.triu_indices(size, 1)
        both = np.stack([buckets[:, left].reshape(-1), buckets[:, right].reshape(-1)], axis=1)
        pairs.append(both[_near(sketches, both[:, 0], both[:, 1], config)])
    for start, size in zip(*(x[sizes > _ALL_PAIRS].tolist() for x in (starts, sizes)), strict=True):
        pairs.append(_led(rows[start : start + size], sketches, config))
    a, b = np.concatenate(pairs).T
    columns = {
        field.name: found[field.name[2:]].take(pa.array(a if field.name[0] == "a" else b))
        for field in EDGES
    }
    edges = pa.table(columns, schema=EDGES)
    wanted = ~unseen[b] & (edges["a_key"].to_numpy() != edges["b_key"].to_numpy())
    return _unique(edges.filter(pa.array(wanted)))


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
    for start in range(0, len(a), 1 << 20):  # bounds the memory of a large bucket
        part = slice(start, start + (1 << 20))
        bits = sketches[a[part]] ^ sketches[b[part]]
        differ = np.bitwise_and(bits | bits >> 1, np.uint8(0x55))
        agreement = 1 - np.bitwise_count(differ).sum(1, dtype=np.int64) / config.permutations
        near[part] = (agreement - 0.25) / 0.75 >= config.threshold
    return near


def _led(bucket: Ints, sketches: npt.NDArray[np.uint8], config: NearConfig) -> Ints:
    """Pairs of a large bucket: its oldest text with all later ones, the oldest left over, ..."""
    free = np.ones(len(bucket), bool)
    pairs = []
    for _ in range(_LEADERS):
        leaders = np.flatnonzero(free)
        if not len(leaders):
            break
        later = bucket[leaders[0] + 1 :]
        near = _near(sketches, np.broadcast_to(bucket[leaders[0]], len(later)), later, config)
        pairs.append(np.stack([np.full(near.sum(), bucket[leaders[0]]), later[near]], axis=1))
        free[leaders[0]] = False
        free[leaders[0] + 1 :] &= ~near
    return np.concatenate(pairs)


def _unique(edges: pa.Table) -> pa.Table:
    both = np.stack([edges["a_key"].to_numpy(), edges["b_key"].to_numpy()])
    order = np.lexsort(both)
    both = both[:, order]
    first = np.r_[True, (both[:, 1:] != both[:, :-1]).any(0)][: len(order)]
    return edges.take(pa.array(order[first]))


# --- groups -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """Which texts belong together, and which cannot stay; ids only, arrays sorted."""

    member: Words  # texts that belong to an older one
    root: Words  # the oldest text of each member's group
    near_excluded: Words  # texts near one that must stay unseen
    crossing: Words  # texts near an older one of another split

    def roots_of(self, keys: Words) -> Words:
        """The group of each text: its root, or the text itself."""
        if not len(self.member):
            return keys
        place = np.minimum(np.searchsorted(self.member, keys), len(self.member) - 1)
        return np.where(self.member[place] == keys, self.root[place], keys)


def resolve(
    edges: Iterable[pa.Table], split_of: Callable[[Words], npt.NDArray[np.int8]], by_text: bool
) -> Groups:
    """Groups of near texts, and the texts that would stand near an older one of another split.

    A text's parent is its oldest older neighbour, its root the end of the chain of parents; both
    depend on older texts alone. Among what is neither `near_excluded` nor `crossing`, no edge joins
    two splits.

    Args:
        edges: parts of schema `EDGES`; a pair may come more than once.
        split_of: the splits of units.
        by_text: the unit of a text is its root; otherwise the edges say it.
    """
    table = _folded(edges)
    excluded = table["a_excluded"].to_numpy()
    near_excluded = np.unique(table["b_key"].to_numpy()[excluded])
    table = table.filter(pa.array(~excluded))
    ends = {name: np.stack([table[f"{end}_{name}"].to_numpy() for end in "ab"])
            for name in ("key", "order", "unit")}  # fmt: skip
    keys, first, flat = np.unique(ends["key"], return_index=True, return_inverse=True)
    a, b = flat.reshape(ends["key"].shape)
    order, unit = (ends[name].reshape(-1)[first] for name in ("order", "unit"))
    root = _roots(a, b, order)
    split = split_of(keys[root] if by_text else unit)
    gone = np.isin(keys, near_excluded)
    differ = np.flatnonzero(split[a] != split[b])
    crossing = np.zeros(len(keys), bool)
    # From the oldest on: whether the older end stays is known when the newer one is looked at.
    for edge in differ[np.argsort(order[b[differ]], kind="stable")].tolist():
        if not gone[a[edge]] and not gone[b[edge]]:
            gone[b[edge]] = crossing[b[edge]] = True
    member = root != np.arange(len(keys))
    return Groups(keys[member], keys[root[member]], near_excluded, keys[crossing])


def _folded(parts: Iterable[pa.Table]) -> pa.Table:
    """All edges once; parts repeat each other's, as a pair may share many bands."""
    kept, waiting, rows = EDGES.empty_table(), [], 0
    for part in parts:
        waiting.append(part.cast(EDGES))
        rows += len(part)
        if rows > _FOLD:
            kept, waiting, rows = _unique(pa.concat_tables([kept, *waiting])), [], 0
    return _unique(pa.concat_tables([kept, *waiting]))


def _roots(a: Ints, b: Ints, order: Words) -> Ints:
    """The end of each text's chain of oldest neighbours. Chains lead to older texts: no circles."""
    parent = np.arange(len(order))
    by_age = np.lexsort((order[a], b))
    newer, place = np.unique(b[by_age], return_index=True)
    parent[newer] = a[by_age][place]
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return parent
        parent = above
