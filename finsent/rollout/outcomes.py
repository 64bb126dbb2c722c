"""Outcomes of requests to a canary and to the current version, as blocks of a canary's test."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from finsent.monitoring.canary import ERROR, Events
from finsent.rollout.rollout_record import RolloutTotals

_LATEST = 1000  # requests of the current version, by which limits of slow requests are set
_MIN_REQUESTS = 100  # below which no request counts as slow
_MAX_WAITING = 1000  # blocks; older ones are dropped while the storage does not answer

Signals = dict[str, bool]  # whether a request had the event; a missing signal was not measured


@dataclass(frozen=True)
class RequestOutcome:
    """What happened to a request."""

    is_error: bool
    seconds: float | None  # None: an error, or the model was not asked
    is_abstained: bool | None  # for a text of the request; None: an error


@dataclass(frozen=True)
class SignalCounts:
    """One signal of a block."""

    canary: int  # 1: the canary's request had the event
    control: int  # requests of the current version with the event
    control_requests: int


Block = Mapping[str, SignalCounts]  # by signal


@dataclass(frozen=True)
class Outcomes:
    """Outcomes that one process saw, in the order of time."""

    blocks: Sequence[Block] = ()
    disagreements: Sequence[int] = ()  # 1: the canary gave another label

    def events(self) -> dict[str, Events]:
        """Return the blocks by signal."""
        events = {}
        for name in dict.fromkeys(name for block in self.blocks for name in block):
            counts = [block[name] for block in self.blocks if name in block]
            events[name] = Events(
                np.array([count.canary for count in counts]),
                np.array([count.control for count in counts]),
                np.array([count.control_requests for count in counts]),
            )
        return events

    def totals(self) -> RolloutTotals:
        """Return the sums."""
        errors = [block[ERROR] for block in self.blocks]

        def with_event(name: str) -> int:
            return sum(block[name].canary for block in self.blocks if name in block)

        return RolloutTotals(
            requests=len(self.blocks),
            errors=with_event(ERROR),
            control_requests=sum(count.control_requests for count in errors),
            control_errors=sum(count.control for count in errors),
            slow=with_event("slow"),
            abstained=with_event("abstained"),
            compared=len(self.disagreements),
            disagreements=sum(self.disagreements),
        )


@dataclass
class BlockBuilder:
    """Collects outcomes of one process into blocks: a canary's request, and those before it."""

    slow_factor: float
    _latest: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))
    _limits: dict[str, float] = field(default_factory=dict)  # seconds by signal, for this block
    _control: dict[str, list[int]] = field(default_factory=dict)  # events and requests by signal
    _blocks: deque[Block] = field(default_factory=lambda: deque(maxlen=_MAX_WAITING))
    _disagreements: deque[int] = field(default_factory=lambda: deque(maxlen=_MAX_WAITING))

    @property
    def waiting(self) -> int:
        """Number of blocks that were not taken yet."""
        return len(self._blocks)

    @property
    def slow_seconds(self) -> float | None:
        """Limit of slow requests in seconds; None: not known yet."""
        return self._limits.get("slow")

    def add_control(self, outcome: RequestOutcome) -> None:
        """Add a request to the current version."""
        for name, has_event in self._signals(outcome).items():
            counts = self._control.setdefault(name, [0, 0])
            counts[0] += has_event
            counts[1] += 1
        if outcome.seconds is not None:
            self._latest.append(outcome.seconds)

    def add_canary(self, outcome: RequestOutcome) -> None:
        """Add a request to the canary, which completes a block."""
        block = {}
        for name, has_event in self._signals(outcome).items():
            control, requests = self._control.get(name, (0, 0))
            block[name] = SignalCounts(int(has_event), control, requests)
        self._blocks.append(block)
        self._control = {}
        self._set_limits()

    def add_comparison(self, *, is_other_label: bool) -> None:
        """Add a text that both versions answered."""
        self._disagreements.append(int(is_other_label))

    def take(self) -> Outcomes:
        """Return what was collected, and collect anew."""
        outcomes = Outcomes(tuple(self._blocks), tuple(self._disagreements))
        self._blocks.clear()
        self._disagreements.clear()
        return outcomes

    def _signals(self, outcome: RequestOutcome) -> Signals:
        signals: Signals = {ERROR: outcome.is_error}
        if outcome.is_abstained is not None:
            signals["abstained"] = outcome.is_abstained
        if outcome.seconds is not None:
            seconds = outcome.seconds
            signals |= {name: seconds > limit for name, limit in self._limits.items()}
        return signals

    def _set_limits(self) -> None:
        """Set the limits of the next block by requests before it."""
        if len(self._latest) >= _MIN_REQUESTS:
            median, high = np.quantile(self._latest, (0.5, 0.99))
            self._limits = {
                "slow_median": float(median) * self.slow_factor,
                "slow": float(high) * self.slow_factor,
            }
