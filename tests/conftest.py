"""Fixtures of all tests. The folder of a test gives its mark and its budget."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.properties import DEEP
from tests.threads import compute_threads

# Before anything imports Ray or a Hugging Face library.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("WANDB_MODE", "disabled")  # tests of tracking set it

# A shell lets what it starts in the background ignore SIGINT, which tests send to jobs.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    # One compute thread in each process of tests: more would fight for the same cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.budget", "tests.scheduling", "tests.seaweed", "tests.served"]

TESTS = Path(__file__).parent
SHARED = TESTS.parent.parent / "shared" / "data"
KINDS = ("unit", "integration", "e2e", "slow")

# Examples have no deadline: the machine may stall.
settings.register_profile("finsent", deadline=None, print_blob=True, max_examples=50 * DEEP)
settings.load_profile("finsent")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in KINDS:
            item.add_marker(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the tiny BERT, which is built once."""
    from finsent.modeling.random_backbones import tiny_backbone

    return tiny_backbone(tmp_path_factory.mktemp("backbones"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute with one thread: several threads slow down models as small as the tiny BERT."""
    with compute_threads(1):
        yield


@pytest.fixture(scope="module")
def keep_threads() -> Iterator[None]:
    """Restore the number of compute threads, which engines set for the process."""
    with compute_threads():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real labeled data, or skip the test without that folder."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data here")
    return SHARED


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a new working directory with the project's configs, and return that directory."""
    (tmp_path / "configs").symlink_to(TESTS.parent / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def own_loggers() -> Iterator[None]:
    """Restore the project's loggers after a test. Replicas replace their handlers."""
    loggers = [logging.getLogger(name) for name in ("finsent", "finsent.requests", "serve_app")]
    before = [(item.level, item.handlers, item.propagate, item.disabled) for item in loggers]
    yield
    for logger, state in zip(loggers, before, strict=True):
        level, logger.handlers, logger.propagate, logger.disabled = state
        logger.setLevel(level)
