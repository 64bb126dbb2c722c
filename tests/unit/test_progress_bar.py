"""Progress bars: redrawn on a terminal, plain lines in a log."""

from __future__ import annotations

import io
import sys

import pytest

from finsent.progress import format_duration, progress_bar


class Screen(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def drawn(monkeypatch: pytest.MonkeyPatch, terminal: bool, late: bool = False) -> str:
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar(
        "train", "row", 40, 10, terminal_seconds=0, log_seconds=0, delayed=late
    ) as bar:
        bar.set_postfix(epoch=1, refresh=False)
        bar.update(10)
        bar.update(20)
    return screen.getvalue()


def test_a_log_has_a_line_per_drawing_and_no_control_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = drawn(monkeypatch, terminal=False)
    assert all(letter.isprintable() for letter in text.replace("\n", ""))
    lines = text.splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == [
        "train: 25% (10 of 40)",
        "train: 50% (20 of 40)",
    ]
    assert lines[-1].startswith("train: 100% (40 of 40), 00:00 so far, 00:00 left, ")
    assert lines[-1].endswith("epoch=1")
    assert len(lines) == len(set(lines)), "no line twice"


def test_a_terminal_redraws_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(monkeypatch, terminal=True)
    assert text.count("\r") >= 3
    assert text.count("\n") == 1


def test_a_delayed_bar_of_short_work_writes_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Screen(terminal=False))
    with progress_bar("read", "B", 2000, terminal_seconds=60, log_seconds=60, delayed=True) as bar:
        bar.update(2000)
    assert screen.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (7.4, "0:07"),
        (59.6, "1:00"),
        (271, "4:31"),
        (3599.7, "1:00:00"),
        (7325, "2:02:05"),
    ],
)
def test_duration_reads_as_a_clock(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
