"""Settings of the service."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import field_validator, model_validator

from finsent.config import Section, setting
from finsent.names import CalibrationsByTag

_ORIGIN = r"\*|https?://[^/\s?#@]+"  # as browsers write the header `Origin`, or all of them


class LimitsConfig(Section):
    """What one request, and all of them, may ask for."""

    body_bytes: int = setting(
        2 << 20, "largest body of a request; more is refused with 413", unit="bytes", ge=1024
    )
    file_bytes: int = setting(
        64 << 20, "largest file that /predict/file takes", unit="bytes", ge=1024
    )
    files: int = setting(
        8, "files that a replica scores at the same time; more are refused with 429", ge=1
    )
    file_seconds: float = setting(
        3600.0,
        "time for a file of /predict/file, from its first byte in to its last one out; an upload "
        "that takes longer ends with 504, and rows that are not classified by then say so",
        unit="seconds",
        gt=0,
    )
    file_bytes_per_second: int = setting(
        1024,
        "slowest rate at which a file may come in and its answer be read, behind which it may be "
        "by `timeout_ms`; slower ones are ended",
        unit="bytes per second",
        ge=1,
    )
    texts: int = setting(1024, "texts of one request; more are refused with 422", ge=1)
    characters: int = setting(
        20_000, "characters of one text; more are refused with 422", unit="characters", ge=1
    )
    requests: int = setting(
        1024, "requests of a replica at the same time; more are refused with 429", ge=1
    )
    queue_seconds: float = setting(
        5.0,
        "work that may wait at a replica, by the rate measured there; a request that would make "
        "it more is refused with 429",
        unit="seconds",
        gt=0,
    )
    timeout_ms: int = setting(
        10_000,
        "time for a request without the header X-Request-Timeout-Ms, and the most that it may ask "
        "for; then 504",
        unit="ms",
        ge=1,
    )
    explain_words: int = setting(
        64, "words of a text that /explain weighs one by one; in longer texts groups of words", ge=1
    )


class ServeConfig(Section):
    """The service: where it listens, what it answers with, how far it grows."""

    model: str = setting(
        "champion",
        "model of the registry: `alias:NAME`, `version:ID`, or a bare name that is one of them; an "
        "alias is followed while the service runs",
    )
    calibrations: CalibrationsByTag = setting(
        dict,
        "calibration (`ray_jobs.calibrate`) of `model` by the tag that requests give as `source`, "
        "e.g. {tweets: tweets, stocktwits: tweets, news: null}; null: the model's own; a request "
        "with another tag is refused, and so is a version that lacks one of them",
    )
    served_names: list[str] = setting(
        list,
        "names that clients of vLLM's API know the model by, e.g. ProsusAI/finbert; answers carry "
        "the first. The alias or version in `model` is always one more",
    )
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0: all of this machine's")
    port: int = setting(8000, "port of HTTP; 0: a free one", ge=0, le=65535)
    root_path: str = setting(
        "",
        "prefix that a proxy in front puts before the service's paths, e.g. /ai/sentiment, whether "
        "the proxy strips it or passes it on; empty: none",
        pattern=r"^(/\.*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$",  # browsers resolve /. and /..
    )
    min_replicas: int = setting(1, "replicas that always run, each with an engine", ge=1)
    max_replicas: int = setting(
        1, "replicas to grow to while work waits; each wants cores of its own", ge=1
    )
    num_cpus: float = setting(
        1.0, "CPUs that a replica asks Ray for; null threads in `engine` use all there are", gt=0
    )
    drain_seconds: float = setting(
        0.5,
        "waiting work, by the rate measured, at which another replica is started",
        unit="seconds",
        gt=0,
    )
    upscale_seconds: float = setting(
        2.0, "time that the wish for more replicas must last", unit="seconds", ge=0
    )
    downscale_seconds: float = setting(
        60.0, "time that the wish for fewer replicas must last", unit="seconds", ge=0
    )
    grpc_port: int | None = setting(
        None, "port of gRPC; 0: a free one; null: none is opened", ge=0, le=65535
    )
    shadow: str | None = setting(
        None,
        "alias or version, as in `model`, that is asked the same, unseen by clients, to compare it "
        "(/info has how often it agrees); null: none",
    )
    shadow_share: float = setting(
        1.0, "share of the texts that the shadow is asked, as far as it keeps up", ge=0, le=1
    )
    explainers: int = setting(
        0,
        "processes for /explain alone, each with an engine; 0: gateways explain, between other "
        "requests",
        ge=0,
    )
    record: bool = setting(
        False,
        "write each answer (label, probabilities, version, the text's SHA-256; with log_texts the "
        "text) as a line of STORAGE/predictions/DATE.jsonl",
    )
    watch_seconds: float = setting(
        5.0, "how often a replica looks where the alias points; 0: never", unit="seconds", ge=0
    )
    api_keys: str | None = setting(
        None,
        "file of API keys (`ray_jobs.serve new-key NAME ROLE` makes entries); null: no key is "
        "asked for",
    )
    cors_origins: list[str] = setting(
        list, "origins whose pages may call the service, e.g. https://desk.example; none by default"
    )
    cache_entries: int = setting(
        0, "answers that a replica keeps, by exact text and model version; 0: none", ge=0
    )
    log_requests: bool = setting(
        False,
        "write a line of JSON for each request into the log; those that went wrong, but for the "
        "ones refused with 429, have one anyway",
    )
    log_texts: bool = setting(False, "also write the texts into the log and the prediction log")
    otlp_endpoint: str | None = setting(
        None,
        "where OpenTelemetry traces go over OTLP/HTTP, e.g. http://localhost:4318; null: none are "
        "made (extra `otel`)",
    )
    fast: bool = setting(
        True,
        "in a local Ray: replicas answer HTTP themselves, without Serve's proxy process in between",
    )
    start_timeout: int = setting(
        120, "time until the service must be healthy", unit="seconds", ge=1
    )
    limits: LimitsConfig = setting(LimitsConfig, "what requests may ask for")

    @property
    def keys_file(self) -> Path | None:
        """`api_keys` as a path."""
        return Path(self.api_keys).expanduser().absolute() if self.api_keys else None

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not re.fullmatch(_ORIGIN, origin):
                raise ValueError(
                    f"{origin!r} is no origin, and no browser sends it; write https://HOST, with "
                    "the port where it is not the usual one, and no path; or *"
                )
        return origins

    @model_validator(mode="after")
    def _in_order(self) -> ServeConfig:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas={self.max_replicas}: must not be below "
                f"min_replicas={self.min_replicas}"
            )
        return self

    @model_validator(mode="after")
    def _own_ports(self) -> ServeConfig:
        if self.port == self.grpc_port != 0:
            raise ValueError(
                f"grpc_port={self.grpc_port}: must not be port, which HTTP has; write another, or "
                "0 for a free one"
            )
        return self
