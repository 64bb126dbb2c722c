"""The alert rules, each with planted series on which it fires and stays quiet."""

from __future__ import annotations

from cluster.monitoring.model import Alert, Planted, Recording
from cluster.monitoring.promql import CLIENTS, braces, quantile, rate, ratio
from finsent import metric_list as m

OBJECTIVE = 0.999  # share of requests that the service answers
_FAILED = CLIENTS + ',status=~"5..|429"'
_ERRORS = CLIENTS + ',status=~"5.."'
_REFUSED = CLIENTS + ',status="429"'
_MIN_REQUESTS = 20  # in five minutes; below, one failure would be a high share


_WINDOWS = ("5m", "30m", "1h", "6h")
RECORDINGS = tuple(
    Recording(
        f"finsent:failed_requests:ratio_rate{window}",
        ratio(rate(m.REQUESTS, _FAILED, window=window), rate(m.REQUESTS, CLIENTS, window=window)),
    )
    for window in _WINDOWS
)
_RATIO = {window: rule.series for window, rule in zip(_WINDOWS, RECORDINGS, strict=True)}


def _burns(factor: float, long: str, short: str) -> str:
    """Return the condition that the error budget of 30 days is spent `factor` times too fast."""
    limit = f"{factor:g} * {1 - OBJECTIVE:g}"
    return f"{_RATIO[long]} > {limit} and {_RATIO[short]} > {limit}"


def _requests(status: str, per_minute: float) -> Planted:
    series = f'{m.REQUESTS.series}{{operation="predict",status="{status}"}}'
    return Planted(series, f"0+{per_minute:g}x600")


def _gauge(metric: m.Metric, values: str, **labels: str) -> Planted:
    words = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return Planted(f"{metric.series}{{{words}}}", values)


def _constant(metric: m.Metric, value: float, **labels: str) -> Planted:
    return _gauge(metric, f"{value:g}x2000", **labels)


def _latencies(within: float, above: float) -> tuple[Planted, ...]:
    """Return a histogram's series: requests per minute that take under 0.1 s, and 5 to 10 s."""
    name = f"{m.REQUEST_SECONDS.series}_bucket"
    counts = {"0.1": within, "5": within, "10": within + above, "+Inf": within + above}
    return tuple(
        Planted(f'{name}{{operation="predict",le="{bound}"}}', f"0+{count:g}x600")
        for bound, count in counts.items()
    )


def _share(selector: str) -> str:
    """Return the share of clients' requests in five minutes, where they are many enough."""
    part, total = (
        f"sum(increase({m.REQUESTS.series}{braces(s)}[5m]))" for s in (selector, CLIENTS)
    )
    return f"{part} / ({total} > {_MIN_REQUESTS})"


_MARK = 'mark="abstained"'
_ABSTAINED, _ABSTAINED_BEFORE = (
    f"sum({rate(m.MARKED_PREDICTIONS, _MARK, window=window)}) / "
    f"sum({rate(m.PREDICTIONS, window=window)})"
    for window in ("1h", "1d")
)
_REJECTED = (
    f"sum by (dataset) (max by (dataset, reason) (max_over_time({m.INGEST_REJECTED.series}[30m])))"
    f" / on (dataset) max by (dataset) (max_over_time({m.INGEST_ROWS.series}[30m]))"
)
_DISK_FREE, _DISK_USED = "ray_node_disk_free", "ray_node_disk_usage"

SERVICE_ALERTS = (
    Alert(
        "FinsentNoReadyReplica",
        f"sum({m.READY.series}) == 0 or absent({m.READY.series})",
        2,
        "critical",
        "No replica of the service answers",
        "Read the log of the service and /readyz. Remove the rule where no service runs.",
        fires=(_constant(m.READY, 0, replica="a"),),
        quiet=(_constant(m.READY, 1, replica="a"), _constant(m.READY, 0, replica="b")),
    ),
    Alert(
        "FinsentErrors",
        f"{_share(_ERRORS)} > 0.01",
        5,
        "critical",
        "More than 1 % of requests fail with status 5xx",
        "Find the code in finsent_problems_total, and the reason in the log of the replicas.",
        fires=(_requests("200", 60), _requests("500", 2)),
        quiet=(_requests("200", 60), _requests("500", 0.1), _requests("429", 9)),
    ),
    Alert(
        "FinsentSlow",
        f"{quantile(0.99, m.REQUEST_SECONDS, CLIENTS)} > 0.8 * max({m.DEADLINE_SECONDS.series})",
        10,
        "warning",
        "1 % of requests take over 80 % of the deadline",
        "See the mean time by stage: add replicas if texts wait, else find what slows the machine.",
        fires=(*_latencies(95, 5), _constant(m.DEADLINE_SECONDS, 10)),
        quiet=(*_latencies(100, 0), _constant(m.DEADLINE_SECONDS, 10)),
    ),
    Alert(
        "FinsentOverloaded",
        f"{_share(_REFUSED)} > 0.05",
        5,
        "warning",
        "The service refuses over 5 % of requests, because its queue is full",
        "Raise serve.max_replicas, or add machines.",
        fires=(_requests("200", 60), _requests("429", 10)),
        quiet=(_requests("200", 60), _requests("429", 1)),
    ),
    Alert(
        "FinsentQueueNearlyFull",
        f"max({m.DRAIN_SECONDS.series}) > 0.8 * max({m.QUEUE_LIMIT_SECONDS.series})",
        5,
        "warning",
        "A replica needs over 80 % of serve.limits.queue_seconds for its queue",
        "Raise serve.max_replicas, or add machines, before requests are refused.",
        fires=(_constant(m.DRAIN_SECONDS, 1.8), _constant(m.QUEUE_LIMIT_SECONDS, 2)),
        quiet=(_constant(m.DRAIN_SECONDS, 0.2), _constant(m.QUEUE_LIMIT_SECONDS, 2)),
    ),
    Alert(
        "FinsentAbstentionRise",
        f"{_ABSTAINED} > 1.5 * ({_ABSTAINED_BEFORE}) + 0.05",
        30,
        "warning",
        "The model abstains on far more texts than in the last 24 hours",
        "Compare the texts with those of the training, and the model version with the one before.",
        fires=(
            _gauge(m.PREDICTIONS, "0+60x2000", label="neutral"),
            _gauge(m.MARKED_PREDICTIONS, "0+3x1440 4350+30x500", mark="abstained"),
        ),
        quiet=(
            _gauge(m.PREDICTIONS, "0+60x2000", label="neutral"),
            _gauge(m.MARKED_PREDICTIONS, "0+3x2000", mark="abstained"),
        ),
        hours=26,
    ),
    Alert(
        "FinsentModelSkew",
        f"count(sum by (model_version) ({m.SERVED_MODEL.series}) > 0) > 1",
        15,
        "warning",
        "Replicas answer with different model versions",
        "Read refused versions in /info: a replica could not load the new version.",
        fires=(
            _constant(m.SERVED_MODEL, 1, replica="a", model_version="v1"),
            _constant(m.SERVED_MODEL, 1, replica="b", model_version="v2"),
        ),
        quiet=(
            _constant(m.SERVED_MODEL, 0, replica="a", model_version="v1"),
            _constant(m.SERVED_MODEL, 1, replica="a", model_version="v2"),
            _constant(m.SERVED_MODEL, 1, replica="b", model_version="v2"),
        ),
    ),
    Alert(
        "FinsentUserConfigRefused",
        f"max({m.USER_CONFIG_REFUSED.series}) > 0",
        1,
        "warning",
        "The service refused its last user_config",
        "Read the reason in /info, and deploy a correct user_config.",
        fires=(_constant(m.USER_CONFIG_REFUSED, 1),),
        quiet=(_constant(m.USER_CONFIG_REFUSED, 0),),
    ),
    Alert(
        "FinsentRolledBack",
        f"max({m.ROLLOUT_ROLLED_BACK.series}) > 0",
        1,
        "warning",
        "A canary was rolled back",
        "Read the reason in /info, and in the rollout's audit log.",
        fires=(_constant(m.ROLLOUT_ROLLED_BACK, 1),),
        quiet=(_constant(m.ROLLOUT_ROLLED_BACK, 0),),
    ),
    Alert(
        "FinsentErrorBudgetFast",
        _burns(14.4, "1h", "5m"),
        2,
        "critical",
        "At this rate the error budget of 30 days is spent in 2 days",
        "Failed are 5xx and 429: see FinsentErrors and FinsentOverloaded.",
        fires=(_requests("200", 60), _requests("429", 1)),
        quiet=(_requests("200", 600), _requests("500", 1)),
    ),
    Alert(
        "FinsentErrorBudgetSlow",
        _burns(6, "6h", "30m"),
        15,
        "warning",
        "At this rate the error budget of 30 days is spent in 5 days",
        "Failed are 5xx and 429: see the dashboard of serving.",
        fires=(_requests("200", 600), _requests("500", 5)),
        quiet=(_requests("200", 600), _requests("500", 0.5)),
        hours=8,
    ),
)

JOB_ALERTS = (
    Alert(
        "FinsentTrainingStalled",
        f"max by (run) ({m.TRAIN_WORKERS.series}) > 0 unless on (run) "
        f"max by (run) (changes({m.TRAIN_STEP.series}[15m])) > 0",
        15,
        "warning",
        "Training {{ $labels.run }} makes no steps",
        "Look for a machine that does not answer in Ray's dashboard. Interrupt and resume the run.",
        fires=(_constant(m.TRAIN_WORKERS, 2, run="news"), _constant(m.TRAIN_STEP, 70, run="news")),
        quiet=(
            _constant(m.TRAIN_WORKERS, 2, run="news"),
            _gauge(m.TRAIN_STEP, "0+10x2000", run="news"),
        ),
        labels=(("run", "news"),),
    ),
    Alert(
        "FinsentTrainingDiverged",
        f"{m.TRAIN_DIVERGENCES.series} unless {m.TRAIN_DIVERGENCES.series} offset 1h",
        0,
        "warning",
        "The loss of training {{ $labels.run }} is not a finite number, or too high",
        "Lower train.learning_rate under another run.name. The job's error names the rows.",
        fires=(_gauge(m.TRAIN_DIVERGENCES, "_x90 1x500", run="news"),),
        quiet=(_constant(m.TRAIN_DIVERGENCES, 1, run="news"),),
        labels=(("run", "news"),),
    ),
    Alert(
        "FinsentIngestRejects",
        f"{_REJECTED} > 0.05",
        0,
        "warning",
        "Ingest rejected over 5 % of the rows of {{ $labels.dataset }}",
        "The report of the dataset version has the reasons with examples.",
        fires=(
            _constant(m.INGEST_ROWS, 1000, dataset="news"),
            _constant(m.INGEST_REJECTED, 0, dataset="news", reason="none"),
            _constant(m.INGEST_REJECTED, 90, dataset="news", reason="empty"),
        ),
        quiet=(
            _constant(m.INGEST_ROWS, 1000, dataset="news"),
            _constant(m.INGEST_REJECTED, 9, dataset="news", reason="empty"),
        ),
        labels=(("dataset", "news"),),
    ),
    Alert(
        "FinsentDiskNearlyFull",
        f"{_DISK_FREE} / ({_DISK_FREE} + {_DISK_USED}) < 0.1",
        10,
        "warning",
        "The disk of {{ $labels.instance }} has less than 10 % of its space left",
        "Delete old runs and dataset versions, or enlarge the disk.",
        fires=(
            Planted(f'{_DISK_FREE}{{instance="a"}}', "5x2000"),
            Planted(f'{_DISK_USED}{{instance="a"}}', "95x2000"),
        ),
        quiet=(
            Planted(f'{_DISK_FREE}{{instance="a"}}', "50x2000"),
            Planted(f'{_DISK_USED}{{instance="a"}}', "50x2000"),
        ),
        labels=(("instance", "a"),),
    ),
    Alert(
        "FinsentTargetDown",
        'up{job=~".*(finsent|ray).*"} == 0',
        5,
        "warning",
        "Prometheus gets no metrics from {{ $labels.instance }}",
        "Check the process, the network policy, and for the service the key of the metrics.",
        fires=(Planted('up{job="ray",instance="a"}', "0x2000"),),
        quiet=(Planted('up{job="ray",instance="a"}', "1x2000"),),
        labels=(("instance", "a"), ("job", "ray")),
    ),
)

ALERTS = (*SERVICE_ALERTS, *JOB_ALERTS)
