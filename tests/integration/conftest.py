"""One local Ray for all integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cluster import shared_ray


@pytest.fixture(scope="package", autouse=True)  # so that it ends before other tests follow
def local_ray() -> Iterator[None]:
    """The shared Ray. Its workers have imported what ingest needs, so that no test pays for it."""
    with shared_ray():
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.data.range(4, override_num_blocks=4).map_batches(import_ingest).materialize()
        yield


@pytest.fixture(scope="session", autouse=True)
def ingest_on_ray() -> Iterator[None]:
    """Ingest on Ray, however few rows a test has. `test_small_ingest.py` compares the two ways."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finsent.data.ingest.ingest._MAX_LOCAL_BYTES", -1)
        yield


def import_ingest(batch: Any) -> Any:
    """Import in a worker."""
    import finsent.data.ingest.ingest  # noqa: F401

    return batch
