"""Storage on a server that refuses, stalls, cuts, loses and falsifies: nothing is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.registry.aliases import Aliases
from finsent.storage import Location, StorageConfig, StorageError
from tests.fault_proxy import Fault, FaultProxy, fault_proxy

PASSING: tuple[Fault, ...] = ("503", "429", "torn", "lost")


@pytest.fixture
def proxy(s3_server: str) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server) as running:
        yield running


@pytest.fixture
def locate(proxy: FaultProxy, s3_root: str, tmp_path: Path) -> Callable[[float], Location]:
    """Makes the location of a bucket behind the proxy, with the seconds of its retries."""

    def of(retry_seconds: float) -> Location:
        config = StorageConfig(cache_dir=str(tmp_path / "cache"), retry_seconds=retry_seconds)
        # The address is an option: clients are cached by their root.
        address = f"{s3_root}?endpoint_override={proxy.url.removeprefix('http://')}&scheme=http"
        return Location.at(address, "storage.root", config)

    return of


Locate = Callable[[float], Location]


def often(seed: int, share: float) -> Callable[[str], Fault | None]:
    """A choice of faults by chance."""
    rng = random.Random(seed)
    return lambda _: rng.choice(PASSING) if rng.random() < share else None


@pytest.mark.cost(3, "hundreds of requests through a proxy in this process")
def test_passing_faults_lose_nothing(proxy: FaultProxy, locate: Locate) -> None:
    proxy.choose = often(0, 0.25)
    location = locate(60)
    with location.trees.publish("versions/a") as staging:
        for index in range(5):
            (staging / f"{index}").write_bytes(bytes([index]) * 1000)
    folder = location.trees.fetch("versions/a")
    for index in range(5):
        assert (folder / f"{index}").read_bytes() == bytes([index]) * 1000
    assert location.trees.names("versions") == ["a"]
    aliases = Aliases(location / "aliases")
    versions = [f"{number:012x}" for number in range(16)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda version: aliases.move("champion", version, None), versions))
    record = aliases.get("champion")
    assert record is not None
    assert sorted(change.version for change in record.changes) == versions
    assert {*proxy.counts} == {*PASSING}


@pytest.mark.cost(2, "requests that are repeated until the time is over")
@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("503", "HTTP 503 SlowDown"),
        ("429", "HTTP 429 TooManyRequests"),
        ("stall", ""),
        ("lost", ""),
        ("torn", ""),
    ],
)
def test_a_fault_that_stays_is_one_line(
    fault: Fault, problem: str, proxy: FaultProxy, locate: Locate
) -> None:
    location = locate(1.0)
    location.store.put("a", b"x" * 100)
    proxy.choose = lambda _: fault
    for call in (
        lambda: location.store.read("a"),
        lambda: location.store.put("a", b"y"),
        lambda: location.store.put_if_absent("b", b"y"),
    ):
        started = time.monotonic()
        with pytest.raises(StorageError) as caught:
            call()
        assert time.monotonic() - started < 8
        text = str(caught.value)
        assert text.startswith(f"storage.root='{location}': cannot be used for 1 s (")
        assert problem in text and "\n" not in text and "127.0.0.1" not in text
        assert text.endswith(
            "Check AWS_ENDPOINT_URL and AWS_REGION, or raise storage.retry_seconds."
        )


def test_a_refused_login_is_not_repeated(proxy: FaultProxy, locate: Locate) -> None:
    proxy.choose = lambda _: "403"
    with pytest.raises(StorageError, match=r"access refused .*Set AWS_ACCESS_KEY_ID") as caught:
        locate(10).store.read("a")
    assert proxy.counts == {"403": 1}
    assert "test" not in str(caught.value).replace("storage.root", "")


@pytest.mark.cost(1, "requests that are repeated until the time is over")
def test_a_publication_that_fails_is_invisible_and_can_be_repeated(
    proxy: FaultProxy, locate: Locate
) -> None:
    location = locate(1.0)

    def write() -> None:
        with location.trees.publish("versions/a") as staging:
            (staging / "f").write_text("x")

    proxy.choose = lambda line: "503" if line.startswith("PUT") and "tree.json" in line else None
    with pytest.raises(StorageError):
        write()
    proxy.choose = lambda _: None
    assert location.trees.names("versions") == []
    assert location.store.list_objects("versions") == []
    write()
    assert (location.trees.fetch("versions/a") / "f").read_text() == "x"


@pytest.mark.cost(1, "requests that are repeated until the time is over")
def test_false_bytes_are_read_again_and_never_returned(proxy: FaultProxy, locate: Locate) -> None:
    location = locate(5.0)
    faults: list[Fault] = ["false", "false"]
    lies = iter(faults)
    with location.trees.publish("a") as staging:
        (staging / "text").write_text("x" * 1000)
    proxy.choose = lambda line: next(lies, None) if "GET" in line and "/text" in line else None
    assert (location.trees.fetch("a") / "text").read_text() == "x" * 1000
    assert proxy.counts == {"false": 2}


def test_a_marker_whose_response_is_lost_is_published_once(
    proxy: FaultProxy, locate: Locate
) -> None:
    location = locate(5.0)
    faults: list[Fault] = ["lost"]
    losses = iter(faults)
    proxy.choose = lambda line: next(losses, None) if "PUT" in line and "tree" in line else None
    with location.trees.publish("a") as staging:
        (staging / "f").write_text("x")
    assert proxy.counts == {"lost": 1}
    assert (location.trees.fetch("a") / "f").read_text() == "x"


def test_a_server_that_is_off_is_one_line(tmp_path: Path) -> None:
    config = StorageConfig(retry_seconds=0.5, cache_dir=str(tmp_path))
    uri = "s3://bucket/a?endpoint_override=127.0.0.1:1&scheme=http&anonymous=true"
    with pytest.raises(InputError) as caught:
        Location.at(uri, "registry.root", config).store.read("a")
    assert str(caught.value).startswith("registry.root='s3://bucket/a': cannot be used for 0.5 s (")
