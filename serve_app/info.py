"""The model and the limits of a replica, as /info and gRPC's Info report them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NotRequired, TypeAlias, TypedDict

from finsent.inference.config import Truncate
from finsent.labels import ID2LABEL, LABEL2ID, LABELS
from finsent.references import plain_name
from finsent.registry.gate import GateBrief
from serve_app.deployments.shadow import AgreementReport
from serve_app.rollout.report import RolloutInfo, describe_rollout
from serve_app.sender import Sender
from serve_app.service.explain import Explanation
from serve_app.service.following import CalibrationInfo
from serve_app.service.model import ModelDetails
from serve_app.service.service import Service

# Arguments: text, truncation, sender and source; see `serve_app.service.explain.explain`.
Explain: TypeAlias = Callable[[Any, Truncate | None, Sender, str | None], Awaitable[Explanation]]


class ShadowReport(TypedDict, total=False):
    """Comparison with the shadow; `problem` in place of `pairs` if the shadow does not answer."""

    model: str | None
    pairs: list[AgreementReport]
    problem: str


ShadowReporter: TypeAlias = Callable[[], Awaitable[ShadowReport]]

_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # TEI's words


class TeiInfo(TypedDict):
    """The fields of text-embeddings-inference's /info for a classifier."""

    model_id: str
    model_sha: str
    model_dtype: str
    model_type: dict[str, dict[str, dict[str, str] | dict[str, int]]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


class ServiceInfo(TeiInfo, ModelDetails):
    """The fields of finsent's /info; `serve_app.http.answers.InfoAnswer` documents them."""

    model: str
    model_version: str
    labels: list[str]
    max_length: int
    temperature: float
    threshold: float | None
    calibrations: dict[str, CalibrationInfo | None]
    backend: str
    device: str
    streams: int
    token_budget: int
    measured_rows_per_second: dict[str, float]
    loaded: float
    refused: dict[str, str] | None
    user_config_refused: str | None
    limits: dict[str, int | float]
    gate: GateBrief | None
    shadow: NotRequired[ShadowReport]  # where one is configured
    rollout: NotRequired[RolloutInfo]  # the latest one, if there was any


async def describe_service(service: Service, shadow: ShadowReporter | None) -> ServiceInfo:
    """Return the model and the limits of a replica.

    Args:
        shadow: reports how the shadow compares; None: the service has no shadow.
    """
    model, config = service.model, service.config
    engine, refused = model.engine, service.models.refused_version
    info: ServiceInfo = {
        "model": config.model,
        "model_version": model.version,
        "labels": list(LABELS),
        "max_length": engine.max_length,
        "temperature": engine.temperature,
        "threshold": engine.threshold,
        "calibrations": service.models.calibrations(),
        "backend": engine.backend.name,
        "device": engine.backend.device,
        "streams": engine.streams,
        "token_budget": model.coalescer.budget,
        "measured_rows_per_second": engine.rates,
        "loaded": model.loaded,
        "refused": None if refused is None else asdict(refused),
        "user_config_refused": service.refused_config,
        "limits": config.limits.model_dump(),
        **_tei_info(service),
        **model.details,  # type: ignore[typeddict-item] # mypy: it could have `shadow`
        "gate": model.gate,
    }
    if service.router is not None and service.router.record is not None:
        info["rollout"] = describe_rollout(service.router.record)
    if config.shadow is not None and shadow is not None:
        info["shadow"] = await shadow()
    return info


def _tei_info(service: Service) -> TeiInfo:
    config, engine = service.config, service.model.engine
    precision = engine.backend.name.rpartition("-")[2]
    return {
        "model_id": plain_name(service.models.reference),
        "model_sha": service.model.version,
        "model_dtype": _DTYPES.get(precision, precision),
        "model_type": {
            "classifier": {
                "id2label": {str(number): label for number, label in ID2LABEL.items()},
                "label2id": LABEL2ID,
            }
        },
        "max_concurrent_requests": config.limits.requests,
        "max_input_length": engine.max_length,
        "max_batch_tokens": service.model.coalescer.budget,
        "max_batch_requests": engine.backend.max_rows,
        "max_client_batch_size": config.limits.texts,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": _version(),
        "sha": None,
        "docker_label": None,
    }


@cache
def _version() -> str:
    """Return finsent's version; a checkout that is not installed has none."""
    try:
        return version("finsent")
    except PackageNotFoundError:
        return "unknown"
