"""The plan and the cost of a sweep, for `--dry-run`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.table import Table

from finsent.data.versions.dataset import DatasetVersion
from finsent.modeling.backbone import Backbone
from tune.cost_estimate import expected_epochs, rows_per_second, sample_configurations
from tune.plan import Plan
from tune.records import Params
from tune.results import Estimate

log = logging.getLogger(__name__)

_SAMPLES = 10  # configurations that are shown


def log_cost(expected: Estimate) -> None:
    """Log the cost of a sweep in one line."""
    log.info(
        "sweep: about %d epochs of %d rows (%d without early stopping), then %d to verify; "
        "%.0f minutes of trials one after another at %.0f rows/s (%s), less with several at a "
        "time",
        expected.epochs,
        expected.rows,
        expected.epochs_in_full,
        expected.epochs_to_verify,
        expected.trial_seconds / 60,
        expected.rows_per_second,
        expected.rows_per_second_source,
    )


def estimate(plan: Plan, backbone: Backbone, version: DatasetVersion) -> Estimate:
    """Estimate a sweep's cost. Needs no Ray and writes nothing."""
    config = plan.config
    expected, full = expected_epochs(plan)
    rows = version.rows("train")
    rate, source = rows_per_second(plan.settings, backbone, version)
    verifying = config.verify_best and (
        (config.verify_best + 1) * config.verify_seeds * plan.epochs
    )
    seconds = round((expected + verifying) * rows / rate, 1)
    return Estimate(
        sample_configurations(plan, _SAMPLES),
        expected,
        full,
        verifying,
        rows,
        rate,
        source,
        seconds,
    )


def configs_table(plan: Plan, configs: Sequence[Params]) -> Table:
    """Return a table with one row per configuration."""
    keys = [parameter.key for parameter in plan.space.parameters]
    table = Table("", *keys)
    for number, params in enumerate(configs):
        cells = (params.get(key, "") for key in keys)
        table.add_row(str(number), *(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells))
    return table
