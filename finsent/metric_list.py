"""All metrics that finsent exports to Prometheus: of the service, and of jobs on a Ray cluster.

The service and the jobs create their metrics from this list. `python -m cluster.monitoring` makes
the dashboards, the alert rules and the table of docs/monitoring.md from the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "finsent_"
Kind = Literal["counter", "gauge", "histogram"]
_SECOND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_SCORE_BUCKETS = tuple(tenths / 10 for tenths in range(4, 11))


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, which is fast
class Metric:
    """A metric, as Prometheus describes it."""

    kind: Kind
    name: str  # without prefix and without the suffix `_total`
    unit: str
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # upper bounds of a histogram

    @property
    def series(self) -> str:
        """Name of the time series in Prometheus; a histogram's series add a suffix."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


# --- of each replica of the service -------------------------------------------------------------

REQUESTS = Metric(
    "counter",
    "requests",
    "requests",
    "Requests by operation and HTTP status.",
    ("operation", "status"),
)
REQUEST_SECONDS = Metric(
    "histogram", "request_seconds", "s", "Time of a request.", ("operation",), _SECOND_BUCKETS
)
STAGE_SECONDS = Metric(
    "histogram",
    "stage_seconds",
    "s",
    "Time of a request's texts by stage: tokenizing, waiting for a stream, the model.",
    ("stage",),
    _SECOND_BUCKETS,
)
BATCH_ROWS = Metric(
    "histogram", "batch_rows", "rows", "Rows of a micro-batch.", buckets=_ROW_BUCKETS
)
TOKENS = Metric("counter", "tokens", "tokens", "Tokens of texts and of padding.", ("kind",))
PREDICTIONS = Metric(
    "counter", "predictions", "texts", "Texts by label and model.", ("label", "model_version")
)
SCORE = Metric("histogram", "score", "ratio", "Probability of the label.", buckets=_SCORE_BUCKETS)
MARKED_PREDICTIONS = Metric(
    "counter",
    "marked_predictions",
    "texts",
    "Texts that were truncated or abstained on.",
    ("mark",),
)
# `key` has as many values as the file of keys has names, and `serve_app.auth.UNKNOWN`.
KEY_REQUESTS = Metric(
    "counter",
    "key_requests",
    "requests",
    "Requests by the name of their API key, if the service needs keys.",
    ("key", "operation", "status"),
)
KEY_TEXTS = Metric("counter", "key_texts", "texts", "Texts by the name of the API key.", ("key",))
PROBLEMS = Metric("counter", "problems", "requests", "Refused requests by code.", ("code",))
TEXT_PROBLEMS = Metric(
    "counter", "text_problems", "texts", "Texts without an answer by code.", ("code",)
)
CACHE_HITS = Metric("counter", "cache_hits", "texts", "Answers from the cache.")
QUEUE_ROWS = Metric("gauge", "queue_rows", "texts", "Texts that wait.")
QUEUE_TOKENS = Metric("gauge", "queue_tokens", "tokens", "Tokens that wait or are being computed.")
DRAIN_SECONDS = Metric(
    "gauge", "drain_seconds", "s", "Time to compute the queue's tokens, at the measured rate."
)
QUEUE_LIMIT_SECONDS = Metric(
    "gauge",
    "queue_limit_seconds",
    "s",
    "serve.limits.queue_seconds: a longer queue refuses requests with status 429.",
)
DEADLINE_SECONDS = Metric(
    "gauge", "deadline_seconds", "s", "serve.limits.timeout_ms: the longest time of a request."
)
REQUESTS_IN_PROGRESS = Metric("gauge", "requests_in_progress", "requests", "Requests in progress.")
USER_CONFIG_REFUSED = Metric(
    "gauge",
    "user_config_refused",
    "0 or 1",
    "1: the last user_config was refused; /info has the reason.",
)
READY = Metric("gauge", "ready", "0 or 1", "1: a text would be answered now.")
SERVED_MODEL = Metric(
    "gauge", "served_model", "0 or 1", "1: the model version that answers.", ("model_version",)
)

# `answered_by`: canary, current, or fallback: the current version in the canary's place.
ROLLOUT_REQUESTS = Metric(
    "counter",
    "rollout_requests",
    "requests",
    "Requests during rollouts by the version that answered; fallback: the canary failed.",
    ("answered_by",),
)
ROLLOUT_SHARE = Metric(
    "gauge", "rollout_share", "ratio", "Share of the requests that a canary gets."
)
ROLLOUT_WORSE_EVIDENCE = Metric(
    "gauge",
    "rollout_worse_evidence",
    "ratio",
    "Evidence that the canary is worse; 1 / promote.alpha rolls back.",
)
ROLLOUT_SAFE_EVIDENCE = Metric(
    "gauge",
    "rollout_safe_evidence",
    "ratio",
    "Evidence that the canary is safe; 1 / promote.alpha ends the stage.",
)
ROLLOUT_ROLLED_BACK = Metric(
    "gauge",
    "rollout_rolled_back",
    "0 or 1",
    "1: the latest rollout was rolled back; /info has the reason.",
)
ROLLOUT_DECISIONS = Metric(
    "gauge", "rollout_decisions", "decisions", "Decisions of the latest rollout."
)

SERVICE_METRICS = (
    REQUESTS,
    REQUEST_SECONDS,
    STAGE_SECONDS,
    BATCH_ROWS,
    TOKENS,
    PREDICTIONS,
    SCORE,
    MARKED_PREDICTIONS,
    KEY_REQUESTS,
    KEY_TEXTS,
    PROBLEMS,
    TEXT_PROBLEMS,
    CACHE_HITS,
    QUEUE_ROWS,
    QUEUE_TOKENS,
    DRAIN_SECONDS,
    QUEUE_LIMIT_SECONDS,
    DEADLINE_SECONDS,
    REQUESTS_IN_PROGRESS,
    USER_CONFIG_REFUSED,
    READY,
    SERVED_MODEL,
    ROLLOUT_REQUESTS,
    ROLLOUT_SHARE,
    ROLLOUT_WORSE_EVIDENCE,
    ROLLOUT_SAFE_EVIDENCE,
    ROLLOUT_ROLLED_BACK,
    ROLLOUT_DECISIONS,
)

# --- of jobs on a Ray cluster -------------------------------------------------------------------

_RUN = ("run",)

TRAIN_ROWS = Metric("counter", "train_rows", "rows", "Rows trained on, over all workers.", _RUN)
TRAIN_STEP = Metric("gauge", "train_step", "steps", "Steps since the start of the run.", _RUN)
TRAIN_PROGRESS = Metric(
    "gauge", "train_progress_ratio", "ratio", "Share of the run's steps that are made.", _RUN
)
TRAIN_LOSS = Metric("gauge", "train_loss", "nats", "Mean loss of the epoch so far.", _RUN)
TRAIN_PADDING = Metric(
    "gauge",
    "train_padding_ratio",
    "ratio",
    "Share of padding in the epoch's computed tokens.",
    _RUN,
)
TRAIN_VALIDATION_LOSS = Metric(
    "gauge", "train_validation_loss", "nats", "Validation loss of the last epoch.", _RUN
)
TRAIN_MACRO_F1 = Metric(
    "gauge", "train_macro_f1", "ratio", "Macro-F1 on the validation rows, last epoch.", _RUN
)
TRAIN_WORKERS = Metric("gauge", "train_workers", "workers", "Workers of a running training.", _RUN)
TRAIN_GPU_BYTES = Metric(
    "gauge",
    "train_gpu_bytes",
    "bytes",
    "GPU memory that a worker's tensors use. Ray exports the GPU's utilization.",
    ("run", "rank"),
)
TRAIN_DIVERGENCES = Metric(
    "counter",
    "train_divergences",
    "runs",
    "Trainings that ended because the loss was not a finite number, or above train.max_loss.",
    _RUN,
)
# An ingest may be shorter than the interval of scrapes, which would see no counter increase.
INGEST_ROWS = Metric(
    "gauge", "ingest_rows", "rows", "Rows read from the labeled sources of an ingest.", ("dataset",)
)
INGEST_REJECTED = Metric(
    "gauge",
    "ingest_rejected_rows",
    "rows",
    "Rows that an ingest rejected, by reason; `none`: 0, in each ingest.",
    ("dataset", "reason"),
)
INGEST_SETTLED = Metric(
    "gauge",
    "ingest_settled_rows",
    "rows",
    "Valid rows of an ingest by fate: kept, duplicates, conflicts, excluded.",
    ("dataset", "fate"),
)
PREDICT_ROWS = Metric("counter", "predict_rows", "rows", "Rows that predict scored.", _RUN)
PREDICT_PROGRESS = Metric(
    "gauge",
    "predict_progress_ratio",
    "ratio",
    "Share of the rows of unfinished files that are scored.",
    _RUN,
)
SWEEP_TRIALS = Metric(
    "counter", "sweep_trials", "trials", "Ended trials by status.", ("run", "status")
)
SWEEP_RUNNING = Metric("gauge", "sweep_running_trials", "trials", "Running trials.", _RUN)
SWEEP_EPOCHS = Metric("counter", "sweep_epochs", "epochs", "Epochs of all trials.", _RUN)
SWEEP_BEST = Metric(
    "gauge",
    "sweep_best_value",
    "of the metric",
    "Best value of sweep.metric.",
    ("run", "objective"),
)

JOB_METRICS = (
    TRAIN_ROWS,
    TRAIN_STEP,
    TRAIN_PROGRESS,
    TRAIN_LOSS,
    TRAIN_PADDING,
    TRAIN_VALIDATION_LOSS,
    TRAIN_MACRO_F1,
    TRAIN_WORKERS,
    TRAIN_GPU_BYTES,
    TRAIN_DIVERGENCES,
    INGEST_ROWS,
    INGEST_REJECTED,
    INGEST_SETTLED,
    PREDICT_ROWS,
    PREDICT_PROGRESS,
    SWEEP_TRIALS,
    SWEEP_RUNNING,
    SWEEP_EPOCHS,
    SWEEP_BEST,
)
