"""The simulation of `benchmarks.scaling` where the results are known, and the plans of its page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scaling_plans import PAGE, REPLICA, with_table
from benchmarks.scaling_simulation import (
    ServiceModel,
    largest_rate,
    simulate_arrivals,
    simulate_connections,
)

pytestmark = [pytest.mark.unit, pytest.mark.cost(8, "simulates thousands of requests")]

# A stream that needs 100 ms for a micro-batch of up to 8 rows, and a fast gateway.
WAITING = ServiceModel(1, 1, 8, batch_seconds=0.1, row_seconds=0.0, gateway_seconds=1e-6)


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_full_batches_give_the_rate_of_the_streams(streams: int) -> None:
    simulated = simulate_connections(replace(WAITING, streams=streams), 96, 30)
    assert simulated.rate == pytest.approx(streams * 8 / 0.1, rel=0.01)
    # Little's law: connections = rate x time.
    assert simulated.p50 / 1000 * simulated.rate == pytest.approx(96, rel=0.1)


def test_one_connection_waits_for_each_part() -> None:
    model = replace(WAITING, gateway_seconds=0.01, call_seconds=0.02, network_seconds=0.03)
    simulated = simulate_connections(model, 1, 30)
    assert simulated.mean == pytest.approx(160, rel=0.05)
    assert simulated.rate == pytest.approx(1 / 0.16, rel=0.05)


def test_a_slow_gateway_limits_the_rate() -> None:
    model = replace(WAITING, streams=3, gateway_seconds=0.01)
    assert simulate_connections(model, 96, 20).rate == pytest.approx(100, rel=0.05)
    assert model.capacity == pytest.approx(100)
    assert replace(model, servers=2).capacity == pytest.approx(200)


def test_single_rows_have_the_waiting_times_of_a_queue_with_one_server() -> None:
    """M/D/1 at half of its rate: by Pollaczek and Khinchine the mean is 1.5 times the service's."""
    model = replace(WAITING, max_rows=1, batch_seconds=0.01)
    simulated = simulate_arrivals(model, 50, 400)
    assert simulated.rate == pytest.approx(50, rel=0.05)
    assert simulated.mean == pytest.approx(15, rel=0.05)
    assert simulated.p50 < simulated.mean < simulated.p99


def test_the_largest_rate_keeps_the_limit_and_is_below_the_capacity() -> None:
    rate = largest_rate(REPLICA, 100.0)
    assert 0.8 * REPLICA.capacity < rate <= REPLICA.capacity
    assert largest_rate(REPLICA, 15.0) < rate


def test_the_page_has_the_computed_plans() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_table(text), "run `python -m benchmarks.scaling_plans`"
