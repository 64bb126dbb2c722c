"""Records that a pair of stray quotes made part of one text.

Such a text is well-formed CSV. What gives it away is a line in it with a value of another column
(a label, a score, an id) where that column has its field.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.sources.columns import Columns
from finsent.labels import LABELS

_MOST_VALUES = 200  # of a column whose values are names
_MOST_SHAPES = 20
_MOST_COLUMNS = 1_000  # RE2 repeats no more often
_LOOK = 2_000  # distinct values of a block
_NUMBER = r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_REPEATED = "repeated_header: the names of the columns again, as where files were joined"
_FAULT = "swallowed_rows: a stray quote made one text of several records"


class Witness:
    """The values that another column than the text's has had so far."""

    def __init__(self, columns: Columns, delimiter: str) -> None:
        self._columns, self._delimiter = columns, delimiter
        self._values: set[str] = set()
        self._shapes: set[str] = set()  # patterns of values that hold a digit
        self._are_names = True

    @property
    def name(self) -> str | None:
        """Return the column: the label's, else another of the file; None: there is no other."""
        others = [
            name
            for name in (self._columns.label, self._columns.unit, *self._columns.all)
            if name is not None
            and name != self._columns.text
            and self._columns.all.count(name) == 1
        ]
        return others[0] if others else None

    def faults(self, texts: Any, values: Any = None) -> pa.Array:
        """Return what is wrong with texts; null where a text is only a text.

        Args:
            texts: of one block.
            values: the column `name` in the same block.
        """
        return pc.coalesce(self._repeated(texts, values), self._swallowed(texts, values))

    def _repeated(self, texts: Any, values: Any) -> pa.Array:
        """Where the header stands again, as in files that were joined."""
        none = pa.scalar(None, pa.string())
        if not self._columns.all:
            return none
        same = pc.equal(pc.utf8_ltrim(texts, "\ufeff"), self._columns.text)
        if values is not None:
            same = pc.and_(same, pc.equal(pc.utf8_ltrim(values, "\ufeff"), self.name))
        return pc.if_else(same, pa.scalar(_REPEATED), none)

    def _swallowed(self, texts: Any, values: Any) -> pa.Array:
        none = pa.nulls(len(texts), pa.string())
        lines = pc.fill_null(pc.match_substring_regex(texts, r"[\r\n]"), False)
        if values is not None:
            self._learn(values.filter(pc.invert(lines)))
        if not pc.any(lines).as_py():
            return none
        found = pc.match_substring_regex(texts, f"(?i){'|'.join(self._patterns())}")
        return pc.if_else(found, pa.scalar(_FAULT), none)

    def _learn(self, values: Any) -> None:
        if not self._are_names and len(self._shapes) > _MOST_SHAPES:
            return
        for value in pc.unique(values).slice(0, _LOOK).to_pylist():
            value = (value or "").strip()
            if not value or re.search(r"[\r\n]", value):
                continue
            if re.search(r"\d", value) and not re.search(r"\s", value) and len(value) < 40:
                if len(self._shapes) <= _MOST_SHAPES:
                    self._shapes.add(_shape(value))
            elif self._are_names:
                self._values.add(value.lower())
                self._are_names = len(self._values) <= _MOST_VALUES

    def _patterns(self) -> list[str]:
        delimiter = re.escape(self._delimiter)
        label = rf'"?(?:{"|".join(LABELS)})"?'
        patterns = [
            rf"{delimiter}\s*{label}\s*[\r\n]",
            rf"{delimiter}{label}{delimiter}[^\r\n]*[\r\n]",
            rf"[\r\n]{label}{delimiter}",
        ]
        if self._are_names and self._values:
            names = "|".join(map(re.escape, sorted(self._values)))
            patterns.append(self._within_record(f"(?:{names})", is_number=False))
        if 0 < len(self._shapes) <= _MOST_SHAPES:
            shapes = "|".join(sorted(self._shapes))
            patterns.append(self._within_record(f"(?:{shapes})", is_number=True))
        return [pattern for pattern in patterns if pattern]

    def _within_record(self, value: str, is_number: bool) -> str:
        """A line of a record whose text is swallowed, with a value in the witness's field."""
        columns, delimiter = self._columns.all, re.escape(self._delimiter)
        if self.name is None or columns.count(self._columns.text) != 1:
            return ""
        if len(columns) > _MOST_COLUMNS:
            return ""
        text, place = columns.index(self._columns.text), columns.index(self.name)
        field = rf'(?:"[^"\r\n]*"|[^{delimiter}\r\n]*)'
        # In a sentence a space follows a comma; without one it is a decimal: 1,5.
        is_sentence = is_number and self._delimiter in ",."
        if place > text:
            before = r"[^0-9\s]" if is_sentence else ""
            between, behind = place - text - 1, len(columns) - 1 - place
            return (
                rf"{before}{delimiter}(?:{field}{delimiter}){{{between}}}\"?{value}\"?"
                rf"(?:{delimiter}{field}){{{behind}}}[\r\n]"
            )
        after = r"[^0-9\s]" if is_sentence else r"\S"
        return (
            rf"[\r\n](?:{field}{delimiter}){{{place}}}\"?{value}\"?{delimiter}"
            rf"(?:{field}{delimiter}){{{text - place - 1}}}{after}"
        )


def _shape(value: str) -> str:
    """A pattern of values that are written alike: figures for figures, letters for letters."""
    if re.fullmatch(_NUMBER, value):
        return _NUMBER
    shape = ""
    for run in re.findall(r"[0-9]+|[A-Za-z]+|.", value):
        shape += "[0-9]+" if run[0].isdigit() else "[A-Za-z]+" if run.isalpha() else re.escape(run)
    return shape
