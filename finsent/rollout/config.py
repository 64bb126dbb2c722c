"""Settings of promotions and of canaries."""

from __future__ import annotations

from pydantic import field_validator

from finsent.config import Section, setting
from finsent.names import Alias


class PromoteConfig(Section):
    """How a model version gets an alias."""

    alias: Alias = setting("champion", "alias that the version gets")
    canary: bool = setting(
        False,
        "send the version growing shares of the running service's requests, and move the alias "
        "after the last stage; false: move the alias at once",
    )
    stages: list[float] = setting(
        lambda: [1.0, 5.0, 20.0, 50.0, 100.0],
        "shares of the requests by stage of a canary",
        unit="percent",
        min_length=1,
    )
    margin: float = setting(
        0.02,
        "errors per request, in addition to the current version's, that must be excluded before a "
        "stage ends",
        unit="fraction",
        gt=0,
        lt=1,
    )
    allowed_disagreement: float = setting(
        0.1,
        "share of texts on which a canary may give another label than the current version",
        unit="fraction",
        gt=0,
        lt=1,
    )
    alpha: float = setting(
        0.05,
        "largest probability that a canary that equals the current version is rolled back",
        unit="fraction",
        gt=0,
        lt=1,
    )
    slow_factor: float = setting(
        2.0,
        "a request to a canary is slow if it takes longer than this factor times the median, or "
        "times the 99th percentile, of the current version's latest requests",
        ge=1,
    )
    compare_share: float = setting(
        0.05,
        "share of all requests that the current version answers, too, to count how often a canary "
        "disagrees",
        unit="fraction",
        ge=0,
        le=1,
    )
    shadow_margin: float = setting(
        0.02,
        "accuracy difference between a shadow and the current version that counts as equal",
        unit="fraction",
        gt=0,
        lt=1,
    )
    behavior_margin: float = setting(
        0.02,
        "share of the behavior suite's cases that a version may fail in addition to the version "
        "that has the alias",
        unit="fraction",
        ge=0,
        lt=1,
    )
    parity_margin: float = setting(
        0.04,
        "share of the behavior suite's texts that the backend of the service may label differently "
        "from torch in fp32",
        unit="fraction",
        ge=0,
        lt=1,
    )

    @field_validator("stages")
    @classmethod
    def _rising(cls, stages: list[float]) -> list[float]:
        pairs = zip([0.0, *stages], stages, strict=False)
        if stages[-1] != 100 or any(share >= following for share, following in pairs):
            raise ValueError(
                f"{stages}: not rising shares up to 100. Write for example [1, 5, 20, 50, 100]."
            )
        return stages
