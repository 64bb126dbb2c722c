# shellcheck shell=sh
# The environment of a cluster's nodes: source it before `ray start`.
# Ray reads these variables when its processes start. They equal finsent.adapters.ray_core.ENVIRONMENT.
export RAY_USAGE_STATS_ENABLED=0
export RAY_ENABLE_AUTO_CONNECT=0
export RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=0.2
export RAY_worker_niceness=0
export RAY_DEDUP_LOGS=0
export RAY_DATA_DISABLE_PROGRESS_BARS=1
export RAY_DATA_USE_DATASOURCE_V2=0
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
export TOKENIZERS_PARALLELISM=false
# Without this, `ray start` accepts jobs from every client that reaches its ports.
export RAY_AUTH_MODE=token
