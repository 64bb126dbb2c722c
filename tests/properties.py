"""How many examples a property test tries: few in `make test`, more in `make test-slow`."""

from __future__ import annotations

import os

from hypothesis import settings

DEEP = 10 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 1


def examples(count: int) -> settings:
    """Try so many examples, ten times as many under the deep profile."""
    return settings(max_examples=count * DEEP)
