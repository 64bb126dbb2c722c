"""Near-duplicates: pairs are found, grouped by age, and never in two splits."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.data.config import NearConfig
from finsent.data.ingest import near
from finsent.data.ingest.groups import Groups, resolve
from finsent.data.ingest.near import EDGES, band_shape, entries, find_edges
from finsent.normalize import key64, text_keys
from tests.properties import examples

pytestmark = pytest.mark.cost(1, "compares many texts")

CONFIG = NearConfig()


def words(seed: int, count: int = 25) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("aeiounrstlmkd", k=rng.randint(3, 9))) for _ in range(count)]


def table(texts: Sequence[str], excluded: Sequence[bool] | None = None) -> pa.Table:
    array = pa.array(texts, pa.string())
    keys = key64(text_keys(array))
    return pa.table(
        {
            "key": keys,
            "order": np.arange(len(texts), dtype=np.uint64),
            "unit": keys,
            "excluded": np.array(excluded or [False] * len(texts)),
            "text": array,
        }
    )


def pairs(texts: Sequence[str], excluded: Sequence[bool] | None = None) -> set[tuple[int, int]]:
    """Positions of the texts that are found near, the older first."""
    rows = table(texts, excluded)
    positions = {key: i for i, key in enumerate(rows["key"].to_pylist())}
    edges = find_edges(entries(rows, CONFIG), CONFIG)
    assert edges.schema == EDGES
    return {
        (positions[a], positions[b])
        for a, b in zip(edges["a_key"].to_pylist(), edges["b_key"].to_pylist(), strict=True)
    }


# --- finding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.75, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("permutations", [32, 128, 256])
def test_pairs_at_the_threshold_share_a_band(threshold: float, permutations: int) -> None:
    bands, rows = band_shape(NearConfig(threshold=threshold, permutations=permutations))
    assert bands * rows <= permutations
    assert 1 - (1 - threshold**rows) ** bands >= 0.99


STORY = " ".join(words(1))
BAND = 6316099285771939118


@pytest.mark.parametrize(
    "other",
    [
        STORY + ".",
        f"{STORY.upper()} !",
        STORY.replace(" ", ", ", 3),
        f"{STORY} https://example.org/a1b2",
        f"RT @desk {STORY}",
        STORY.rsplit(" ", 1)[0],
        STORY.replace(words(1)[12], "other"),
    ],
    ids=["punctuation", "case", "commas", "link", "retweet", "shorter", "one word"],
)
def test_small_changes_are_near(other: str) -> None:
    assert pairs([STORY, other]) == {(0, 1)}


@pytest.mark.parametrize(
    "others",
    [
        ["Sales rose in Norway", "Profit fell at the bank in spring"],
        ["Net sales of the group rose to 12 million", "Net debt of the bank fell to 9 billion"],
        ["up", "up!"],  # too short for a shingle
        ["", "?"],
    ],
)
def test_different_texts_are_not_near(others: list[str]) -> None:
    assert pairs(others) == set()


def similarity(a: str, b: str) -> float:
    first, second = ({x[i : i + 5] for i in range(len(x) - 4)} for x in (a, b))
    return len(first & second) / len(first | second)


def test_recall_and_precision_against_exact_similarity() -> None:
    rng = random.Random(7)
    texts = []
    for seed in range(300):
        base = words(seed)
        changed = [w if rng.random() > 0.06 else "".join(rng.choices("xyz", k=5)) for w in base]
        texts += [" ".join(base), " ".join(changed)]
    similar_pairs = pairs(texts)
    exact = {(i, i + 1): similarity(texts[i], texts[i + 1]) for i in range(0, len(texts), 2)}
    exact = {(i, j): value for (i, j), value in exact.items() if texts[i] != texts[j]}
    clear = {pair for pair, value in exact.items() if value >= CONFIG.threshold + 0.1}
    assert len(clear) > 80
    assert len(clear - similar_pairs) <= 0.02 * len(clear)
    assert all(exact.get(pair, 0) > CONFIG.threshold - 0.2 for pair in similar_pairs)
    below = {pair for pair, value in exact.items() if value < CONFIG.threshold - 0.05}
    assert len(below) > 20
    assert len(below & similar_pairs) <= 0.1 * len(
        below
    )  # values that agree by chance do not count


def test_a_huge_bucket_does_not_compare_all_pairs() -> None:
    texts = [f"{STORY} {number}" for number in range(20_000)]
    rows = table(texts)
    bands = entries(rows, CONFIG)
    one_band = bands.filter(pa.array(bands["band"].to_numpy() == bands["band"][0].as_py()))
    edges = find_edges(one_band, CONFIG)
    assert len(one_band) > 10_000
    assert len(edges) < 5 * len(one_band)
    assert len(np.unique(edges["b_key"].to_numpy())) >= len(one_band) - 50


def headlines(count: int) -> list[str]:
    """From one template: most pairs are about as similar as the threshold."""
    rng = random.Random(3)
    names = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(4, 9))) for _ in range(99)]
    return [
        f"{rng.choice(names)} Corporation announces third quarter financial results and conference "
        f"call with {rng.choice(names)} management on Thursday, revenue rose {rng.randint(1, 99)} "
        f"percent to {number} million dollars"
        for number in range(1000, 1000 + count)
    ]


@pytest.mark.parametrize("all_pairs", [16, 1024])
def test_templates_leak_neither_from_a_benchmark_nor_across_splits(
    all_pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against all pairs whose sketches are near, in large buckets and in small ones."""
    monkeypatch.setattr(near, "_MAX_BUCKET_FOR_ALL_PAIRS", all_pairs)
    unseen = 60
    rows = table(headlines(500), [i < unseen for i in range(500)])
    bands = entries(rows, CONFIG)
    keys = rows["key"].to_numpy()
    positions = {key: i for i, key in enumerate(keys.tolist())}
    sketches = np.zeros((500, 32), np.uint8)
    for key, sketch in zip(*(bands[c].to_pylist() for c in ("key", "sketch")), strict=True):
        sketches[positions[key]] = np.frombuffer(sketch, np.uint8)
    a, b = np.triu_indices(500, 1)
    which = near._is_near(sketches, a, b, CONFIG)
    a, b = a[which], b[which]
    groups = resolve([find_edges(bands, CONFIG)], halves, by_text=True)
    must_go = np.unique(b[(a < unseen) & (b >= unseen)])
    assert len(must_go) > 300
    assert {*keys[must_go].tolist()} <= {*groups.near_excluded.tolist()}

    labeled = rows.filter(pa.array(np.arange(500) >= unseen))
    groups = resolve([find_edges(entries(labeled, CONFIG), CONFIG)], halves, by_text=True)
    split, gone = halves(groups.roots_of(keys)), np.isin(keys, groups.crossing)
    left = (a >= unseen) & ~gone[a] & ~gone[b]
    assert left.sum() > 1000
    assert (split[a] != split[b])[left].mean() < 0.01


def test_the_order_of_rows_in_a_table_changes_nothing() -> None:
    texts = [" ".join(words(s)) for s in range(40)] + [" ".join(words(s)) + " x" for s in range(40)]
    bands = entries(table(texts), CONFIG)
    shuffled = bands.take(pa.array(np.random.default_rng(0).permutation(len(bands))))
    assert find_edges(shuffled, CONFIG).equals(find_edges(bands, CONFIG))
    assert len(find_edges(bands, CONFIG)) == 40


def test_hashes_do_not_depend_on_the_process() -> None:
    """Versions are the same on every machine: this changes only with every split."""
    assert entries(table([STORY]), CONFIG)["band"][0].as_py() == BAND


def test_a_text_that_must_stay_unseen_is_the_older_of_a_pair() -> None:
    later = [STORY, f"{STORY} x"]
    assert pairs(later, [False, True]) == {(1, 0)}
    assert pairs(later, [True, True]) == set()


# --- groups ---------------------------------------------------------------------------------------


def edge_table(
    edges: Sequence[tuple[int, int]], excluded: frozenset[int] = frozenset()
) -> pa.Table:
    """Edges between texts that are named by their age; unseen ones are older than all."""
    ordered = [
        (b, a) if b in excluded or (a not in excluded and b < a) else (a, b) for a, b in edges
    ]
    ordered = [(a, b) for a, b in ordered if b not in excluded and a != b]
    a, b = (np.array([e[i] for e in ordered], np.uint64) for i in (0, 1))
    columns = [a * 10, a, a * 7, np.isin(a, [*excluded]), b * 10, b, b * 7]
    return pa.table([pa.array(c) for c in columns], schema=EDGES)


def halves(units: npt.NDArray[np.uint64]) -> npt.NDArray[np.int8]:
    return (units // np.uint64(10) % np.uint64(2)).astype(np.int8)


def of(groups: Groups, count: int) -> list[int]:
    return [int(x) // 10 for x in groups.roots_of(np.arange(count, dtype=np.uint64) * 10)]


def test_the_root_is_the_oldest_of_a_chain() -> None:
    groups = resolve([edge_table([(2, 4), (4, 6)]), edge_table([(6, 8), (2, 4)])], halves, True)
    assert of(groups, 9) == [0, 1, 2, 3, 2, 5, 2, 7, 2]
    assert not len(groups.crossing)


def test_a_text_near_two_splits_is_removed() -> None:
    groups = resolve([edge_table([(1, 5), (2, 5), (5, 7)])], halves, True)
    assert of(groups, 8) == [0, 1, 2, 3, 4, 1, 6, 1]
    assert groups.crossing.tolist() == [50]  # near 1 (odd) and 2 (even)


def test_texts_near_an_excluded_one_are_removed_first() -> None:
    groups = resolve([edge_table([(9, 3), (3, 4)], frozenset({9}))], lambda u: halves(u), False)
    assert groups.near_excluded.tolist() == [30]
    assert not len(groups.crossing)  # 4 is near 3 only, which is gone


def test_no_edges_no_groups() -> None:
    groups = resolve([], halves, True)
    keys = np.array([5, 6], np.uint64)
    assert groups.roots_of(keys).tolist() == [5, 6]


edge_lists = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=60)


@examples(200)
@given(edges=edge_lists, cut=st.integers(1, 25), by_text=st.booleans())
def test_newer_texts_never_change_the_fate_of_older_ones(
    edges: list[tuple[int, int]], cut: int, by_text: bool
) -> None:
    old = [(a, b) for a, b in edges if a < cut and b < cut]
    before = resolve([edge_table(old)], halves, by_text)
    after = resolve([edge_table(edges)], halves, by_text)
    assert of(before, cut) == of(after, cut)
    assert before.crossing.tolist() == [k for k in after.crossing.tolist() if k < cut * 10]


@examples(200)
@given(
    edges=edge_lists, unseen=st.frozensets(st.integers(0, 25), max_size=4), by_text=st.booleans()
)
def test_no_remaining_pair_is_in_two_splits(
    edges: list[tuple[int, int]], unseen: frozenset[int], by_text: bool
) -> None:
    table_ = edge_table(edges, unseen)
    groups = resolve([table_], halves, by_text)
    gone = {*groups.crossing.tolist(), *groups.near_excluded.tolist()}
    units = groups.roots_of if by_text else (lambda keys: keys // np.uint64(10) * np.uint64(7))
    for a, b, excluded in zip(
        *(table_[c].to_pylist() for c in ("a_key", "b_key", "a_excluded")), strict=True
    ):
        if excluded:
            assert b in gone
        elif a not in gone and b not in gone:
            both = halves(units(np.array([a, b], np.uint64)))
            assert both[0] == both[1]
