"""Fillers that a file of a behavior suite shares among its groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.evaluation.behavior.suite_files import read_suite

GROUP = """
groups:
- {name: rises, about: x, kind: mft, cases: [{text: "{firm} rose", label: positive}]}
"""


@pytest.mark.parametrize(
    ("fillers", "problem"),
    [
        ("firm: [a, a]", r"fillers\.firm=\['a', 'a'\]: not different values\. Write .*"),
        ("firm: []", r"fillers\.firm=\[\]: not different values\. Write .*"),
        ("firm: [a], a b: [c]", r"fillers\.a b: not a name for a filler\. Write a word\."),
    ],
)
def test_wrong_shared_fillers_name_file_and_group(
    fillers: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(f"fillers: {{{fillers}}}{GROUP}")
    with pytest.raises(InputError, match=rf"own\.yaml: group 'rises': {problem}"):
        read_suite(tmp_path)


def test_fillers_of_a_group_replace_shared_ones(tmp_path: Path) -> None:
    group = GROUP.replace("kind: mft", "kind: mft, fillers: {firm: [b]}")
    (tmp_path / "own.yaml").write_text(f"fillers: {{firm: [a, c]}}{group}")
    [suite_group] = read_suite(tmp_path)
    assert [case.texts for case in suite_group.expand()] == [("b rose",)]
