"""Settings of the service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from finsent.config import Section, setting
from finsent.names import CalibrationsByTag

_ORIGIN = r"\*|https?://[^/\s?#@]+"  # as browsers write the header `Origin`; *: all origins


class LimitsConfig(Section):
    """Limits of a request, and of all requests of a replica."""

    body_bytes: int = setting(
        2 << 20,
        "largest body of a request; larger bodies are refused with 413",
        unit="bytes",
        ge=1024,
    )
    file_bytes: int = setting(64 << 20, "largest file of /predict/file", unit="bytes", ge=1024)
    files: int = setting(
        8, "files that a replica scores at a time; more files are refused with 429", ge=1
    )
    file_seconds: float = setting(
        3600.0,
        "time for a file of /predict/file, from the first byte of the upload to the last byte of "
        "the answer; a longer upload ends with 504, and rows that are not classified in time get "
        "the problem deadline_exceeded",
        unit="seconds",
        gt=0,
    )
    file_bytes_per_second: int = setting(
        1024,
        "slowest rate of an upload, and of reading the answer; a client may be `timeout_ms` behind "
        "it, then the connection ends",
        unit="bytes per second",
        ge=1,
    )
    texts: int = setting(1024, "texts per request; more texts are refused with 422", ge=1)
    characters: int = setting(
        20_000, "characters per text; longer texts are refused with 422", unit="characters", ge=1
    )
    requests: int = setting(
        1024, "requests of a replica at a time; more requests are refused with 429", ge=1
    )
    queue_seconds: float = setting(
        5.0,
        "work that may wait at a replica, at its measured rate; a request that exceeds it is "
        "refused with 429",
        unit="seconds",
        gt=0,
    )
    timeout_ms: int = setting(
        10_000,
        "time for a request, after which it ends with 504; the header X-Request-Timeout-Ms may "
        "shorten it",
        unit="ms",
        ge=1,
    )
    explain_words: int = setting(
        64,
        "words that /explain weighs one by one; longer texts are weighed in groups",
        ge=1,
    )


class GatewaysConfig(Section):
    """The gateways of the topology `split`."""

    min_replicas: int = setting(1, "gateways that always run", ge=1)
    max_replicas: int = setting(
        4, "largest number of gateways, reached while they are busy; each uses a core", ge=1
    )
    num_cpus: float = setting(1.0, "CPUs that a gateway requests of Ray", gt=0)
    busy_share: float = setting(
        0.7, "share of a core that a gateway may use before another gateway starts", gt=0, le=1
    )

    @model_validator(mode="after")
    def _in_order(self) -> GatewaysConfig:
        _check_replicas(self.min_replicas, self.max_replicas)
        return self


class ServeConfig(Section):
    """The service: addresses, model, replicas and limits."""

    model: str = setting(
        "champion",
        "model of the registry: `alias:NAME`, `version:ID`, or the bare name of either; the "
        "service follows an alias while it runs",
    )
    calibrations: CalibrationsByTag = setting(
        dict,
        "calibration (`ray_jobs.calibrate`) of `model` by the tag that requests send as `source`, "
        "e.g. {tweets: tweets, stocktwits: tweets, news: null}; null: the model's own; requests "
        "with other tags are refused, and so is a version that lacks a calibration",
    )
    served_names: list[str] = setting(
        list,
        "names of the model for clients of vLLM's API, e.g. ProsusAI/finbert, in addition to the "
        "alias or version in `model`; answers carry the first name",
    )
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0: all addresses of this machine")
    port: int = setting(8000, "port of HTTP; 0: a free port", ge=0, le=65535)
    root_path: str = setting(
        "",
        "prefix of the service's paths at a proxy, e.g. /ai/sentiment, whether the proxy strips "
        "the prefix or passes it on; empty: none",
        pattern=r"^(/\.*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$",  # browsers resolve /. and /..
        form="empty, or begin with / and end without /, with letters, digits, dots, -, _ or ~ "
        "between slashes, and not with dots alone",
    )
    topology: Literal["auto", "fused", "split"] = setting(
        "auto",
        "fused: each replica has the HTTP server and an engine, which is fastest on CPUs; split: "
        "gateways on CPUs send micro-batches to replicas with engines, so that several processes "
        "feed a GPU; auto: split if the cluster has GPUs",
    )
    min_replicas: int = setting(1, "replicas that always run, each with an engine", ge=1)
    max_replicas: int = setting(
        1, "largest number of replicas, reached while work waits; each needs its own cores", ge=1
    )
    num_cpus: float = setting(
        1.0,
        "CPUs that a replica requests of Ray; with threads=null the engine uses all cores",
        gt=0,
    )
    num_gpus: float | None = setting(
        None,
        "GPUs that a replica requests of Ray, e.g. 0.5: two replicas share a GPU; null: 1 in the "
        "topology split if the cluster has GPUs, else 0",
        ge=0,
    )
    gateways: GatewaysConfig = setting(GatewaysConfig, "gateways of the topology split")
    drain_seconds: float = setting(
        0.5,
        "waiting work, at the measured rate, that starts another replica",
        unit="seconds",
        gt=0,
    )
    upscale_seconds: float = setting(
        2.0, "time for which more replicas must be needed before some start", unit="seconds", ge=0
    )
    downscale_seconds: float = setting(
        60.0, "time for which fewer replicas must suffice before some stop", unit="seconds", ge=0
    )
    grpc_port: int | None = setting(
        None, "port of gRPC; 0: a free port; null: no gRPC", ge=0, le=65535
    )
    shadow: str | None = setting(
        None,
        "alias or version, as in `model`, that classifies the same texts for comparison, unseen by "
        "clients; /info reports how often it agrees; null: none",
    )
    shadow_share: float = setting(
        1.0,
        "share of the texts that the shadow gets; a shadow that is too slow drops texts",
        ge=0,
        le=1,
    )
    explainers: int = setting(
        0,
        "processes that only answer /explain, each with an engine; 0: the gateways explain",
        ge=0,
    )
    record: bool = setting(
        False,
        "write each answer (id, label, probabilities, version, times; with log_texts the text) as "
        "a row of the Parquet files in STORAGE/predictions/DATE/HOUR",
    )
    record_seconds: float = setting(
        10.0,
        "time between writes of the prediction log; a recorder that is killed loses the answers "
        "since its last write and those on their way to it",
        unit="seconds",
        gt=0,
        le=600,
    )
    canary_header: str = setting(
        "x-client-id",
        "header whose value decides whether a client's requests go to a canary, so that all "
        "requests of a client go to one version; requests without the header are assigned by text",
        pattern=r"^[a-z0-9-]+$",
        form="lower-case letters, digits and -",
    )
    watch_seconds: float = setting(
        5.0,
        "time between checks of which version the alias names, and of rollouts; 0: never",
        unit="seconds",
        ge=0,
    )
    api_keys: str | None = setting(
        None,
        "file of API keys (`ray_jobs.serve new-key NAME ROLE` adds a key); null: the service needs "
        "no key",
    )
    cors_origins: list[str] = setting(
        list, "origins whose pages may call the service, e.g. https://desk.example; *: all"
    )
    cache_entries: int = setting(
        0, "answers that a replica caches, by exact text and model version; 0: none", ge=0
    )
    log_requests: bool = setting(
        False,
        "write a line of JSON to the log for each request; without it, only failed requests get a "
        "line, except for those refused with 429",
    )
    log_texts: bool = setting(False, "write texts to the log and the prediction log")
    otlp_endpoint: str | None = setting(
        None,
        "OTLP/HTTP address for OpenTelemetry traces, e.g. http://localhost:4318 (extra `otel`); "
        "null: no traces",
    )
    fast: bool = setting(
        True,
        "on a local Ray: replicas answer HTTP themselves, without Serve's proxy process",
    )
    proxies: Literal["every_node", "head"] = setting(
        "every_node",
        "nodes of a cluster that answer at `port`; every_node: all nodes with a replica and the "
        "head; ignored if Serve already runs on the cluster",
    )
    start_timeout: int = setting(
        120, "time in which the service must become healthy", unit="seconds", ge=1
    )
    limits: LimitsConfig = setting(LimitsConfig, "limits of requests")

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
                    f"{origin!r} is not an origin, so no browser sends it. Write https://HOST, "
                    "with the port if it is not the default, and without a path; or *."
                )
        return origins

    @model_validator(mode="after")
    def _in_order(self) -> ServeConfig:
        _check_replicas(self.min_replicas, self.max_replicas)
        return self

    @field_validator("num_gpus")
    @classmethod
    def _possible_gpus(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(
                f"num_gpus={gpus:g}: Ray shares one GPU only. Write a share of at most 1, or a "
                "whole number."
            )
        return gpus

    @model_validator(mode="after")
    def _own_ports(self) -> ServeConfig:
        if self.port == self.grpc_port != 0:
            raise ValueError(
                f"grpc_port={self.grpc_port}: HTTP has this port. Write another port, or 0 for "
                "a free port."
            )
        return self


def _check_replicas(smallest: int, largest: int) -> None:
    if largest < smallest:
        raise ValueError(
            f"max_replicas={largest}: less than min_replicas={smallest}. Raise max_replicas."
        )
