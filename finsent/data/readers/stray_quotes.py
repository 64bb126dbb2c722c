"""Detection of records that a pair of stray quotes made part of one text.

Such a text is well-formed CSV. It is detected by a line in it that has a value of another column
(a label, a score, an id) in the field of that column.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.readers.columns import Columns
from finsent.labels import LABELS

_MAX_NAMES = 200  # distinct values of a column of names; above it they are free text
_MAX_SHAPES = 20  # patterns of values with a digit; above it they are free text
_MAX_SHAPE_CHARACTERS = 40  # of a value; longer ones are names
_MAX_COLUMNS = 1_000  # RE2's limit of repetitions
_MAX_LEARNED = 2_000  # distinct values per block
_NUMBER = r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_REPEATED = "repeated_header: the names of the columns again, as where files were joined"
_SWALLOWED = "swallowed_rows: a stray quote made one text of several records"


class StrayQuoteDetector:
    """Learns the values of a second column, the witness, and detects them within texts."""

    def __init__(self, columns: Columns, delimiter: str) -> None:
        self._columns, self._delimiter = columns, delimiter
        self._names: set[str] = set()  # values without a digit, in lower case
        self._shapes: set[str] = set()  # patterns of values that hold a digit
        self._has_few_names = True

    @property
    def witness(self) -> str | None:
        """Return the witness: the label's column, else another one; None: the file has no other."""
        others = [
            name
            for name in (self._columns.label, self._columns.unit, *self._columns.all)
            if name is not None
            and name != self._columns.text
            and self._columns.all.count(name) == 1
        ]
        return others[0] if others else None

    def faults(self, texts: pa.Array, values: pa.Array | None = None) -> pa.Array:
        """Return the faults of texts; null for valid ones.

        Args:
            texts: of one block.
            values: of the witness's column in the same block; None: the file has no witness.
        """
        return pc.coalesce(self._repeated(texts, values), self._swallowed(texts, values))

    def _repeated(self, texts: pa.Array, values: pa.Array | None) -> pa.Array:
        """Return the faults of records that repeat the header, as in files that were joined."""
        none = pa.scalar(None, pa.string())
        if not self._columns.all:
            return none
        is_header = pc.equal(pc.utf8_ltrim(texts, "\ufeff"), self._columns.text)
        if values is not None:
            is_header = pc.and_(is_header, pc.equal(pc.utf8_ltrim(values, "\ufeff"), self.witness))
        return pc.if_else(is_header, pa.scalar(_REPEATED), none)

    def _swallowed(self, texts: pa.Array, values: pa.Array | None) -> pa.Array:
        none = pa.nulls(len(texts), pa.string())
        spans_lines = pc.fill_null(pc.match_substring_regex(texts, r"[\r\n]"), False)
        if values is not None:
            self._learn(values.filter(pc.invert(spans_lines)))
        if not pc.any(spans_lines).as_py():
            return none
        holds_records = pc.match_substring_regex(texts, f"(?i){'|'.join(self._patterns())}")
        return pc.if_else(holds_records, pa.scalar(_SWALLOWED), none)

    def _learn(self, values: pa.Array) -> None:
        if not self._has_few_names and len(self._shapes) > _MAX_SHAPES:
            return
        for value in pc.unique(values).slice(0, _MAX_LEARNED).to_pylist():
            value = (value or "").strip()
            if not value or re.search(r"[\r\n]", value):
                continue
            if (
                re.search(r"\d", value)
                and not re.search(r"\s", value)
                and len(value) < _MAX_SHAPE_CHARACTERS
            ):
                if len(self._shapes) <= _MAX_SHAPES:
                    self._shapes.add(_shape(value))
            elif self._has_few_names:
                self._names.add(value.lower())
                self._has_few_names = len(self._names) <= _MAX_NAMES

    def _patterns(self) -> list[str]:
        delimiter = re.escape(self._delimiter)
        label = rf'"?(?:{"|".join(LABELS)})"?'
        patterns = [
            rf"{delimiter}\s*{label}\s*[\r\n]",
            rf"{delimiter}{label}{delimiter}[^\r\n]*[\r\n]",
            rf"[\r\n]{label}{delimiter}",
        ]
        if self._has_few_names and self._names:
            names = "|".join(map(re.escape, sorted(self._names)))
            patterns.append(self._within_record(f"(?:{names})", is_number=False))
        if 0 < len(self._shapes) <= _MAX_SHAPES:
            shapes = "|".join(sorted(self._shapes))
            patterns.append(self._within_record(f"(?:{shapes})", is_number=True))
        return [pattern for pattern in patterns if pattern]

    def _within_record(self, value: str, is_number: bool) -> str:
        """Return a pattern of a swallowed record's line that has a value in the witness's field.

        Returns:
            An empty string where the positions of the columns are not known.
        """
        columns, delimiter = self._columns.all, re.escape(self._delimiter)
        if self.witness is None or columns.count(self._columns.text) != 1:
            return ""
        if len(columns) > _MAX_COLUMNS:
            return ""
        text, witness = columns.index(self._columns.text), columns.index(self.witness)
        field = rf'(?:"[^"\r\n]*"|[^{delimiter}\r\n]*)'
        # In a sentence a space follows a comma; without one it is a decimal: 1,5.
        is_sentence = is_number and self._delimiter in ",."
        if witness > text:
            before = r"[^0-9\s]" if is_sentence else ""
            between, after = witness - text - 1, len(columns) - 1 - witness
            return (
                rf"{before}{delimiter}(?:{field}{delimiter}){{{between}}}\"?{value}\"?"
                rf"(?:{delimiter}{field}){{{after}}}[\r\n]"
            )
        first_sign = r"[^0-9\s]" if is_sentence else r"\S"
        return (
            rf"[\r\n](?:{field}{delimiter}){{{witness}}}\"?{value}\"?{delimiter}"
            rf"(?:{field}{delimiter}){{{text - witness - 1}}}{first_sign}"
        )


def _shape(value: str) -> str:
    """Return a pattern of similar values: digits match digits, letters match letters."""
    if re.fullmatch(_NUMBER, value):
        return _NUMBER
    shape = ""
    for run in re.findall(r"[0-9]+|[A-Za-z]+|.", value):
        shape += "[0-9]+" if run[0].isdigit() else "[A-Za-z]+" if run.isalpha() else re.escape(run)
    return shape
