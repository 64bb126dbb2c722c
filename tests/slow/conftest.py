"""One local Ray for the tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster import shared_ray


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """The Ray of `tests.integration`."""
    with shared_ray():
        yield
