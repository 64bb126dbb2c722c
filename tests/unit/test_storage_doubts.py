"""Requests to an object store with an outcome in doubt, and servers that cannot be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from finsent.data.versions.dataset import LATEST, DatasetVersion
from finsent.errors import InputError
from finsent.registry.aliases import Aliases
from finsent.storage import Location, StorageError
from tests.fault_proxy import Fault, FaultProxy
from tests.unit.test_storage_faults import Locate, locate, proxy

__all__ = ["locate", "proxy"]  # fixtures

FIRST, SECOND = "0" * 12, "1" * 12


def at_puts(fault: Fault, key: str) -> Callable[[str], Fault | None]:
    """A fault of every write to a key."""
    return lambda line: fault if line.startswith("PUT") and key in line else None


@pytest.mark.cost(1, "requests that are repeated until the time is over")
def test_a_change_with_a_lost_response_is_reported_as_done(
    proxy: FaultProxy, locate: Locate
) -> None:
    aliases = Aliases(locate(1.0))
    aliases.move("champion", FIRST, None)
    proxy.choose = at_puts("lost", "champion.json")
    aliases.move("champion", SECOND, None)
    record = aliases.get("champion")
    assert record is not None
    assert [change.version for change in record.changes] == [FIRST, SECOND]


@pytest.mark.cost(1, "requests that are repeated until the time is over")
def test_a_change_that_cannot_be_confirmed_says_so(proxy: FaultProxy, locate: Locate) -> None:
    aliases = Aliases(locate(0.5))
    aliases.move("champion", FIRST, None)
    is_lost = False

    def choose(line: str) -> Fault | None:
        nonlocal is_lost
        is_lost = is_lost or line.startswith("PUT")
        return "lost" if is_lost else None

    proxy.choose = choose
    with pytest.raises(StorageError, match=r"'champion' may have changed: run .*registry list"):
        aliases.move("champion", SECOND, None)
    proxy.choose = at_puts("503", "champion.json")
    with pytest.raises(StorageError, match="SlowDown") as caught:
        aliases.move("champion", FIRST, None)
    assert "may have changed" not in str(caught.value)


def test_a_change_that_was_late_is_no_error(proxy: FaultProxy, locate: Locate) -> None:
    aliases = Aliases(locate(2.0))
    aliases.move("champion", FIRST, None)
    others = iter([aliases.location])  # of another writer, which is first after the loss
    is_lost = False

    def choose(line: str) -> Fault | None:
        nonlocal is_lost
        time.sleep(0.7)  # below the time-out of a request; four requests exceed the time to retry
        if line.startswith("PUT") and not is_lost:
            is_lost = True
            return "lost"
        if line.startswith("PUT") and next(others, None) is not None:
            supersede(aliases.location)
        return None

    proxy.choose = choose
    aliases.move("champion", SECOND, None)


def supersede(location: Location) -> None:
    """Change the alias as another process does, not through the proxy."""
    bucket = Location.at(str(location), "storage.root", location.config)
    Aliases(bucket).move("champion", "2" * 12, None)


def test_a_server_that_ignores_conditions_is_refused(proxy: FaultProxy, locate: Locate) -> None:
    location = locate(5.0)
    location.check_writable()
    proxy.choose = lambda line: "unconditional" if line.startswith("PUT") else None
    with pytest.raises(StorageError, match=r"ignores the conditions .* set storage\.root to a dir"):
        location.check_writable()
    assert location.store.list_objects("") == []


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [("expired", "Set AWS_ACCESS_KEY_ID"), ("skew", "Set this machine's clock")],
)
def test_a_refusal_names_its_remedy(
    fault: Fault, remedy: str, proxy: FaultProxy, locate: Locate
) -> None:
    proxy.choose = lambda _: fault
    with pytest.raises(StorageError, match=rf"access refused \(HTTP .*{remedy}"):
        locate(5.0).store.read("a")


def test_a_version_is_usable_where_latest_cannot_be_written(
    proxy: FaultProxy, locate: Locate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.choose = at_puts("403", LATEST)
    DatasetVersion(tmp_path / "a", locate(5.0) / "a").mark_latest()
    assert "`latest` does not become a: storage.root=" in caplog.text


def test_an_unreadable_mark_of_latest_is_ignored(tmp_path: Path) -> None:
    (tmp_path / LATEST).symlink_to("/proc/self/mem")  # whose first byte no user can read
    with pytest.raises(InputError, match=r"latest.*no dataset version"):
        DatasetVersion.find("latest", tmp_path, "train.dataset")
