"""Processes that change one alias at once; tests/slow/test_registry_race.py is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.registry.aliases import Aliases
from finsent.storage import Location, as_location
from tests.registry_race import check_race


@pytest.mark.cost(12, "three processes that import the registry")
@pytest.mark.parametrize("kind", ["directory", "bucket"])
def test_changes_of_three_processes_have_one_order(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    check_race(kind, tmp_path, request, processes=3, count=20)


class LostResponses:
    """A store that carries out conditional writes, and loses the response of the first one."""

    def __init__(self, location: Location) -> None:
        self._store, self.lost = location.store, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        """Replace, and pretend that another writer was first."""
        stored = self._store.put_if_match(key, data, etag)
        if stored is not None and not self.lost:
            self.lost += 1
            return None
        return stored


def test_a_change_whose_response_was_lost_happens_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aliases = Aliases(as_location(tmp_path, "registry.root"))
    aliases.move("champion", "0" * 12, None)
    aliases.move("champion", "1" * 12, None)
    monkeypatch.setitem(aliases.location.__dict__, "store", LostResponses(aliases.location))
    assert aliases.move_back("champion", lambda _: None) == "0" * 12
    record = aliases.get("champion")
    assert record is not None
    assert [change.action for change in record.changes] == ["promote", "promote", "rollback"]
    assert (record.version, record.previous) == ("0" * 12, ())
