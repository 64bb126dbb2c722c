"""The directory of a cluster on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import nodes
from finsent.errors import InputError


def test_directory_that_other_users_may_enter_is_refused_and_kept(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    directory.mkdir(mode=0o755)
    (directory / "theirs").touch()
    with pytest.raises(InputError, match=r"is not a directory of this user with mode 0700\. "):
        nodes.start(directory, workers=0, cpus=1, node_environment={})
    assert (directory / "theirs").exists()


def test_free_ports_are_distinct() -> None:
    ports = nodes.free_ports(30)
    assert len(set(ports)) == 30
