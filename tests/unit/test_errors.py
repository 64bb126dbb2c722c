"""Messages of libraries' errors within messages of finsent."""

from __future__ import annotations

import pytest

from finsent.errors import first_line, one_line


@pytest.mark.parametrize(
    ("error", "first", "line"),
    [
        (OSError(), "OSError", "OSError"),
        (OSError("  \n"), "OSError", "OSError"),
        (OSError("\n no route \n to host"), "no route", "no route to host"),
    ],
)
def test_message_is_one_line_and_never_empty(error: OSError, first: str, line: str) -> None:
    assert first_line(error).strip() == first
    assert one_line(error) == line
