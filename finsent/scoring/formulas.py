"""Quote cells of a CSV that a spreadsheet would run as formulas.

A quoted cell begins with an apostrophe. A cell that begins with apostrophes and then like a formula
gets another one, so that `unquote_formula` returns each cell as it was.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

# The rules of page/table.js.
_FORMULA = r"^'*[=+@\t\r-]"
# Numbers and phone numbers, in which only the first sign can be an operator.
_NUMBER = r"^([+-]?[0-9.,]+([eE][+-]?[0-9]+)?%?|\+[0-9 ()]+)$"
_IS_FORMULA, _IS_NUMBER = re.compile(_FORMULA), re.compile(_NUMBER.replace("$", r"\Z"))
_IS_QUOTED = re.compile(rf"'{_FORMULA[1:]}")


def quote_formula(cell: str) -> str:
    """Return a cell that no spreadsheet executes as a formula. Numbers do not change."""
    return f"'{cell}" if _IS_FORMULA.match(cell) and not _IS_NUMBER.match(cell) else cell


def unquote_formula(cell: str) -> str:
    """Return the argument of `quote_formula` from its result."""
    return cell[1:] if _IS_QUOTED.match(cell) else cell


def quote_formulas(cells: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return texts as `quote_formula` does; null stays null."""
    is_formula = pc.and_(
        pc.match_substring_regex(cells, _FORMULA),
        pc.invert(pc.match_substring_regex(cells, _NUMBER)),
    )
    return pc.if_else(is_formula, pc.binary_join_element_wise("'", cells, ""), cells)
