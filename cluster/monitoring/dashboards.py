"""The dashboards. Ray has its own about nodes, actors and Serve, which are not repeated."""

from __future__ import annotations

from cluster.monitoring.model import Dashboard, Panel, Planted, Query
from cluster.monitoring.promql import CLIENTS, braces, mean, quantile, rate, ratio
from finsent import metric_list as m

_OF_RUN = 'run=~"$run"'


def _by_run(metric: m.Metric, labels: str = "run") -> str:
    return f"max by ({labels}) ({metric.series}{braces(_OF_RUN)})"


_ALL_REQUESTS = rate(m.REQUESTS, CLIENTS)
_ABSTAINED = rate(m.MARKED_PREDICTIONS, 'mark="abstained"')
_TRUNCATED = rate(m.MARKED_PREDICTIONS, 'mark="truncated"')

SERVING = Dashboard(
    "serving",
    "finsent: serving",
    "Requests, latency, queue and models of the service.",
    (
        Panel(
            "Requests per second by status",
            "429: the queue is full. 5xx: read the log of the replica.",
            "reqps",
            (Query(f"sum by (status) ({_ALL_REQUESTS})", "{{status}}"),),
        ),
        Panel(
            "Failed requests",
            "Share of requests with status 5xx, and of refused requests (429).",
            "percentunit",
            (
                Query(ratio(rate(m.REQUESTS, CLIENTS + ',status=~"5.."'), _ALL_REQUESTS), "5xx"),
                Query(ratio(rate(m.REQUESTS, CLIENTS + ',status="429"'), _ALL_REQUESTS), "429"),
            ),
        ),
        Panel(
            "Latency",
            "Quantiles of all requests, and the deadline.",
            "s",
            (
                Query(quantile(0.5, m.REQUEST_SECONDS, CLIENTS), "p50"),
                Query(quantile(0.9, m.REQUEST_SECONDS, CLIENTS), "p90"),
                Query(quantile(0.99, m.REQUEST_SECONDS, CLIENTS), "p99"),
                Query(f"max({m.DEADLINE_SECONDS.series})", "deadline"),
            ),
        ),
        Panel(
            "Mean time by stage",
            "queue grows under load: add replicas. inference grows: the machine is slower.",
            "s",
            (Query(mean(m.STAGE_SECONDS, "stage"), "{{stage}}"),),
        ),
        Panel(
            "Time to compute the queue",
            "Longest of all replicas. Requests above the limit get status 429.",
            "s",
            (
                Query(f"max({m.DRAIN_SECONDS.series})", "queue"),
                Query(f"max({m.QUEUE_LIMIT_SECONDS.series})", "limit"),
            ),
        ),
        Panel(
            "Waiting",
            "Texts in the queues, and requests in progress.",
            "short",
            (
                Query(f"sum({m.QUEUE_ROWS.series})", "texts"),
                Query(f"sum({m.REQUESTS_IN_PROGRESS.series})", "requests"),
            ),
        ),
        Panel(
            "Rows per micro-batch",
            "Mean. Larger micro-batches use the machine better.",
            "short",
            (Query(mean(m.BATCH_ROWS), "rows"),),
        ),
        Panel(
            "Padding and cache",
            "Share of padding in computed tokens, and share of texts answered from the cache.",
            "percentunit",
            (
                Query(ratio(rate(m.TOKENS, 'kind="padding"'), rate(m.TOKENS)), "padding"),
                Query(ratio(rate(m.CACHE_HITS), rate(m.PREDICTIONS)), "cache"),
            ),
            1,
        ),
        Panel(
            "Ready replicas by model version",
            "Two versions for long: a replica cannot load the new version. Read its log.",
            "short",
            (
                Query(f"sum({m.READY.series})", "ready"),
                Query(
                    f"sum by (model_version) ({m.SERVED_MODEL.series})",
                    "{{model_version}}",
                ),
            ),
        ),
        Panel(
            "Refused requests by code",
            "The codes of docs/serving.md.",
            "reqps",
            (Query(f"sum by (code) ({rate(m.PROBLEMS)})", "{{code}}"),),
        ),
        Panel(
            "Requests of a rollout by answering version",
            "fallback: the current version answered, because the canary failed.",
            "reqps",
            (
                Query(
                    f"sum by (answered_by) ({rate(m.ROLLOUT_REQUESTS)})",
                    "{{answered_by}}",
                    (Planted(f'{m.ROLLOUT_REQUESTS.series}{{answered_by="canary"}}', "0+60x60"),),
                ),
            ),
        ),
        Panel(
            "Evidence of a rollout",
            "worse above 1 / promote.alpha rolls back; safe above it ends the stage.",
            "short",
            (
                Query(f"max({m.ROLLOUT_WORSE_EVIDENCE.series})", "worse"),
                Query(f"max({m.ROLLOUT_SAFE_EVIDENCE.series})", "safe"),
                Query(f"max({m.ROLLOUT_DECISIONS.series})", "decisions"),
            ),
        ),
        Panel(
            "Share of a canary",
            "Share of the requests by the stages of promote.stages.",
            "percentunit",
            (Query(f"max({m.ROLLOUT_SHARE.series})", "canary"),),
            1,
        ),
    ),
)

TRAINING = Dashboard(
    "training",
    "finsent: training",
    "Progress and speed of trainings and of predict.",
    (
        Panel(
            "Progress",
            "Share of the run's steps; of predict, of the rows.",
            "percentunit",
            (
                Query(_by_run(m.TRAIN_PROGRESS), "{{run}}"),
                Query(_by_run(m.PREDICT_PROGRESS), "predict {{run}}"),
            ),
            1,
        ),
        Panel(
            "Loss",
            "Mean of the epoch so far, and on the validation rows after each epoch.",
            "short",
            (
                Query(_by_run(m.TRAIN_LOSS), "{{run}}"),
                Query(_by_run(m.TRAIN_VALIDATION_LOSS), "{{run}} validation"),
            ),
        ),
        Panel(
            "Macro-F1 on the validation rows",
            "After each epoch.",
            "percentunit",
            (Query(_by_run(m.TRAIN_MACRO_F1), "{{run}}"),),
            1,
        ),
        Panel(
            "Rows per second",
            "Of all workers of a run.",
            "ops",
            (
                Query(
                    f"sum by (run) ({rate(m.TRAIN_ROWS, _OF_RUN)})",
                    "{{run}}",
                ),
                Query(
                    f"sum by (run) ({rate(m.PREDICT_ROWS, _OF_RUN)})",
                    "predict {{run}}",
                ),
            ),
        ),
        Panel(
            "Padding",
            "Share of the computed tokens. Raise train.bucket_batches if it is high.",
            "percentunit",
            (Query(_by_run(m.TRAIN_PADDING), "{{run}}"),),
            1,
        ),
        Panel(
            "Workers",
            "Fewer than configured: a machine was lost, and the run continues without it.",
            "short",
            (Query(_by_run(m.TRAIN_WORKERS), "{{run}}"),),
        ),
        Panel(
            "Use of machines",
            "CPUs and GPUs of each node, from Ray.",
            "percentunit",
            (
                Query("ray_node_cpu_utilization / 100", "CPU {{instance}}"),
                Query(
                    "ray_node_gpus_utilization / 100",
                    "GPU {{instance}} {{GpuIndex}}",
                    (Planted('ray_node_gpus_utilization{GpuIndex="0",instance="a"}', "50x60"),),
                ),
            ),
            1,
        ),
        Panel(
            "GPU memory of tensors",
            "By worker.",
            "bytes",
            (
                Query(
                    _by_run(m.TRAIN_GPU_BYTES, "run, rank"),
                    "{{run}} rank {{rank}}",
                    (Planted(f'{m.TRAIN_GPU_BYTES.series}{{run="a",rank="0"}}', "1e9x60"),),
                ),
            ),
        ),
    ),
    selects_run=True,
)


def _last(metric: m.Metric, labels: str) -> str:
    """Return the expression of a gauge's last value of a day, whose process may have ended."""
    return f"max by ({labels}) (last_over_time({metric.series}[1d]))"


DATA_QUALITY = Dashboard(
    "data-quality",
    "finsent: data quality",
    "Rows of ingests, and the texts and answers of the service.",
    (
        Panel(
            "Rows of the last ingest by fate",
            "Valid rows. conflicts: equal texts with several labels.",
            "short",
            (Query(_last(m.INGEST_SETTLED, "dataset, fate"), "{{dataset}} {{fate}}"),),
        ),
        Panel(
            "Rejected rows of the last ingest by reason",
            "The report of the dataset version has examples of each reason.",
            "short",
            (Query(_last(m.INGEST_REJECTED, "dataset, reason"), "{{dataset}} {{reason}}"),),
        ),
        Panel(
            "Rejected share of the last ingest",
            "Of all rows that were read.",
            "percentunit",
            (
                Query(
                    f"sum by (dataset) ({_last(m.INGEST_REJECTED, 'dataset, reason')}) / "
                    f"on (dataset) {_last(m.INGEST_ROWS, 'dataset')}",
                    "{{dataset}}",
                ),
            ),
        ),
        Panel(
            "Texts per second by label",
            "A sudden change: other texts, or another model.",
            "ops",
            (Query(f"sum by (label) ({rate(m.PREDICTIONS)})", "{{label}}"),),
        ),
        Panel(
            "Abstained and truncated texts",
            "Share of all texts. More abstentions: the texts differ from the training's.",
            "percentunit",
            (
                Query(ratio(_ABSTAINED, rate(m.PREDICTIONS)), "abstained"),
                Query(ratio(_TRUNCATED, rate(m.PREDICTIONS)), "truncated"),
            ),
            1,
        ),
        Panel(
            "Probability of the label",
            "Quantiles over texts.",
            "percentunit",
            tuple(Query(quantile(q, m.SCORE), f"p{q * 100:.0f}") for q in (0.1, 0.5, 0.9)),
            1,
        ),
        Panel(
            "Texts without an answer by code",
            "text_too_long and others of docs/serving.md.",
            "ops",
            (Query(f"sum by (code) ({rate(m.TEXT_PROBLEMS)})", "{{code}}"),),
        ),
        Panel(
            "Texts per second by API key",
            "Empty for a service without keys.",
            "ops",
            (
                Query(
                    f"sum by (key) ({rate(m.KEY_TEXTS)})",
                    "{{key}}",
                    (Planted(f'{m.KEY_TEXTS.series}{{key="desk"}}', "0+60x60"),),
                ),
            ),
        ),
    ),
)

SWEEPS = Dashboard(
    "sweeps",
    "finsent: sweeps",
    "Trials of a sweep. The dashboard of trainings has each trial.",
    (
        Panel(
            "Best value",
            "Of sweep.metric.",
            "short",
            (Query(_by_run(m.SWEEP_BEST, "run, objective"), "{{run}} {{objective}}"),),
        ),
        Panel(
            "Ended trials by status",
            "failed and diverged: read the reason in the sweep's page.",
            "short",
            (
                Query(
                    f"sum by (run, status) ({m.SWEEP_TRIALS.series}{braces(_OF_RUN)})",
                    "{{run}} {{status}}",
                ),
            ),
        ),
        Panel(
            "Running trials",
            "Fewer than sweep.concurrent: the cluster has no room.",
            "short",
            (Query(_by_run(m.SWEEP_RUNNING), "{{run}}"),),
        ),
        Panel(
            "Epochs per hour",
            "Of all trials.",
            "short",
            (
                Query(
                    f"3600 * sum by (run) ({rate(m.SWEEP_EPOCHS, _OF_RUN)})",
                    "{{run}}",
                ),
            ),
        ),
    ),
    selects_run=True,
)

DASHBOARDS = (SERVING, TRAINING, DATA_QUALITY, SWEEPS)
