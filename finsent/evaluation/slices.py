"""Slices: accuracy on parts of the evaluated rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finsent.evaluation.metrics import confusion, scores
from finsent.metrics_record import AgreementLevel, PartScores, Slice

MIN_ROWS = 30  # with fewer rows the interval is wider than any difference worth acting on
SHORT, LONG = (
    12,
    28,
)  # words; most headlines and tweets have up to SHORT, texts of several clauses over LONG

_Z = 1.959963984540054  # the normal distribution's 97.5 % point
_WORD = r"\S+"
# Words after Potts (http://sentiment.christopherpotts.net/lingstruc.html), as in
# nltk.sentiment.util, and `without`; "No. 2" is not a negation.
_NUMERO = r"\b[Nn]o\. ?[0-9]"
_NEGATION = (
    r"(?i)\b(?:no|not|non|nor|never|none|nobody|nothing|nowhere|noone|neither|cannot|without)\b"
    r"|n['\x{2019}]t\b"
)
_CASHTAG_OR_URL = r"(?i)(?:^|[^\w$])\$[a-z]{1,6}(?:[._][a-z]{1,2})?\b|https?://|\bwww\."
_AGREEMENT = ((1.0, "all"), (0.75, "0.75 to 1"), (0.66, "0.66 to 0.75"), (0.0, "below 0.66"))

Ids = npt.NDArray[np.int64]


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    It stays within [0, 1], and keeps its level with few rows and shares near 0 or 1, where the
    normal interval collapses.
    """
    if not rows:
        return 0.0, 1.0
    share, spread = hits / rows, _Z * _Z / rows
    center = share + spread / 2
    margin = _Z * float(np.sqrt(share * (1 - share) / rows + spread / (4 * rows)))
    low, high = (center - margin) / (1 + spread), (center + margin) / (1 + spread)
    return (0.0 if hits == 0 else low), (1.0 if hits == rows else high)


def slices(
    rows: pa.Table,
    truth: Ids,
    probabilities: npt.NDArray[np.floating[Any]],
    min_rows: int = MIN_ROWS,
) -> tuple[Slice, ...]:
    """Return accuracy and macro-F1 on parts of the rows, the worst part first.

    Parts are made by source, length (words between spaces: short up to 12, long from 29), by
    whether a text holds a digit, a negation, a cashtag or URL, and by the annotators' agreement.
    A criterion that puts all rows into one part is left out.

    By accuracy alone, tiny parts would come first by chance. So parts are sorted by accuracy shrunk
    towards that of all rows, as if each part had `min_rows` more rows of it (Efron & Morris 1975,
    JASA 70, 311). Parts below `min_rows` rows follow the others, with `small` true.

    Args:
        rows: with a `text` column; `source` and `agreement` (a share, null: not known) are used
            where present.
        truth: ids of the labels, shape (rows,).
        probabilities: shape (rows, labels).
        min_rows: rows below which a part is small.
    """
    if not len(truth):
        return ()
    predicted = probabilities.argmax(1).astype(np.int64)
    accuracy = float((truth == predicted).mean())
    parts = []
    for name, values in _criteria(rows):
        encoded = pc.dictionary_encode(values, null_encoding="encode")
        ids = encoded.indices.to_numpy(zero_copy_only=False)
        names = encoded.dictionary.to_pylist()
        if len(names) < 2:
            continue
        for i, value in enumerate(names):
            mask = ids == i
            figures = _measure(truth[mask], predicted[mask])
            parts.append(
                Slice(
                    slice=name,
                    value="not known" if value is None else value,
                    difference=figures.accuracy - accuracy,
                    small=figures.rows < min_rows,
                    **dict(figures),
                )
            )
    return tuple(
        sorted(parts, key=lambda entry: (entry.small, _shrunk_difference(entry, min_rows)))
    )


def agreement_levels(rows: pa.Table, truth: Ids, predicted: Ids) -> tuple[AgreementLevel, ...]:
    """Return figures by the annotators' agreement with the label, the lowest level first.

    `annotators` is the mean share of annotators that gave the label: the expected accuracy of one
    more annotator on these rows. For PhraseBank
    the share is the lower end of the file's range (0.5, 0.66, 0.75 or 1).

    Returns:
        The levels with rows; empty: no row's agreement is known.
    """
    if "agreement" not in rows.column_names:
        return ()
    shares = _combined(rows["agreement"]).to_numpy(zero_copy_only=False).astype(np.float64)
    levels = np.array(_agreement(rows).to_pylist(), object)
    return tuple(
        AgreementLevel(
            level=level,
            annotators=float(shares[levels == level].mean()),
            **dict(_measure(truth[levels == level], predicted[levels == level])),
        )
        for _, level in reversed(_AGREEMENT)
        if (levels == level).any()
    )


def _shrunk_difference(entry: Slice, prior_rows: int) -> float:
    """Return the difference to all rows, shrunk towards 0 by a number of prior rows."""
    return entry.difference * entry.rows / (entry.rows + prior_rows)


def _measure(truth: Ids, predicted: Ids) -> PartScores:
    matrix = confusion(truth, predicted)
    measured, hits = scores(matrix), int(matrix.diagonal().sum())
    return PartScores(
        rows=len(truth),
        accuracy=measured.accuracy,
        interval=wilson(hits, len(truth)),
        macro_f1=measured.macro_f1,
        macro_over=measured.macro_over,
    )


def _criteria(rows: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    """Yield each criterion with the part that each row is in."""
    text = pc.fill_null(_combined(rows["text"]).cast(pa.string()), "")
    if "source" in rows.column_names:
        yield "source", _combined(rows["source"]).cast(pa.string())
    words = pc.count_substring_regex(text, _WORD)
    yield (
        "length",
        _choose(
            [pc.less_equal(words, SHORT), pc.less_equal(words, LONG)],
            [f"short, up to {SHORT} words", f"medium, {SHORT + 1} to {LONG} words"],
            f"long, from {LONG + 1} words",
        ),
    )
    has_number = pc.match_substring_regex(text, r"\p{Nd}")
    yield "number", _choose([has_number], ["has a number"], "has no number")
    without_numero = pc.replace_substring_regex(text, pattern=_NUMERO, replacement="")
    has_negation = pc.match_substring_regex(without_numero, _NEGATION)
    yield "negation", _choose([has_negation], ["has a negation"], "has no negation")
    has_tag = pc.match_substring_regex(text, _CASHTAG_OR_URL)
    yield "cashtag or URL", _choose([has_tag], ["has one"], "has none")
    if "agreement" in rows.column_names:
        yield "agreement", _agreement(rows)


def _agreement(rows: pa.Table) -> pa.Array:
    """Return the level of each row's agreement; null: not known."""
    # To two digits: 0.66 as float32 is below 0.66.
    share = pc.round(_combined(rows["agreement"]).cast(pa.float64()), 2)
    levels = [pc.greater_equal(share, minimum) for minimum, _ in _AGREEMENT]
    level = _choose(
        [pc.fill_null(is_at, False) for is_at in levels], [name for _, name in _AGREEMENT], ""
    )
    return pc.if_else(pc.is_valid(share), level, pa.scalar(None, pa.string()))


def _choose(conditions: list[pa.Array], names: list[str], other: str) -> pa.Array:
    """Return for each row the name of the first condition that holds."""
    struct = pa.StructArray.from_arrays(conditions, [str(i) for i in range(len(conditions))])
    return pc.case_when(struct, *(pa.scalar(name) for name in names), pa.scalar(other))


def _combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
