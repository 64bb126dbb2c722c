"""The gRPC operations, called as Serve calls them; tests/e2e has them over the wire."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2

from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.registry.registry import Registry
from serve_app.auth import Keys, new_key
from serve_app.config import LimitsConfig, ServeConfig
from serve_app.grpc_server.rpc import _STATUS_CODES, Rpc
from serve_app.metrics import Metrics
from serve_app.problems import CODES, Problem
from serve_app.proto import sentiment_pb2 as pb
from serve_app.service.explain import explain
from serve_app.service.service import Service
from tests.unit.models import TEXTS, publish_domain, published

pytestmark = pytest.mark.usefixtures("keep_threads")

ENGINE = EngineConfig(precision="fp32", threads=1)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return published(tiny, tmp_path_factory.mktemp("rpc"), ENGINE)


class Context:
    """The used part of Serve's context."""

    def __init__(self, **metadata: str) -> None:
        self.metadata = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        self.code: grpc.StatusCode | None = None
        self.details = ""

    def invocation_metadata(self) -> Any:
        return self.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


def call(
    registry: Registry, name: str, request: Any, context: Context | None = None, **config: Any
) -> Any:
    async def main() -> Any:
        service = Service(registry.root, ServeConfig(**config), ENGINE)
        await service.models.follow()
        rpc = Rpc(
            service, Keys(service.config.keys_file), Metrics(service), partial(explain, service)
        )
        try:
            return await getattr(rpc, name)(request, context or Context())
        finally:
            assert service.admission.requests == 0

    return asyncio.run(main())


def refused(registry: Registry, name: str, request: Any, context: Context, **config: Any) -> str:
    with pytest.raises(Problem):
        call(registry, name, request, context, **config)
    assert context.code is not None
    return f"{context.code.name} {context.details}"


def test_answers_equal_those_of_the_engine(registry: Registry) -> None:
    expected = Engine(registry.get("champion").path, ENGINE).classify(TEXTS)
    request = pb.PredictListRequest(texts=[*TEXTS, " "], raw_scores=True)
    result = call(registry, "predict_list", request, Context(x_request_id="desk-1"))
    assert result.request_id == "desk-1"
    *answers, blank = result.items
    assert blank.problem.code == "invalid_text"
    for item, prediction in zip(answers, expected, strict=True):
        assert pb.Label.Name(item.prediction.label) == prediction.label.upper()
        assert item.prediction.score == pytest.approx(prediction.score, abs=1e-5)
        assert item.prediction.probabilities.neutral == pytest.approx(
            prediction.probabilities["neutral"], abs=1e-5
        )
        assert item.prediction.polarity == pytest.approx(
            prediction.probabilities["positive"] - prediction.probabilities["negative"], abs=1e-5
        )
        assert item.prediction.HasField("raw_scores")
    # As over HTTP: what a client may put into logs is short.
    odd = call(registry, "predict", pb.PredictRequest(text="Up"), Context(x_request_id="x" * 200))
    assert len(odd.request_id) == 32
    single = call(registry, "predict", pb.PredictRequest(text=TEXTS[0]))
    assert single.prediction.score == pytest.approx(expected[0].score, abs=1e-5)
    assert not single.prediction.HasField("raw_scores")
    assert single.request_id


def test_a_source_selects_its_calibration(registry: Registry) -> None:
    domain = publish_domain(registry, temperature=5.0)
    folder = registry.get("champion").path
    expected = [item.label for item in Engine(folder, ENGINE, domain=domain).classify(TEXTS)]
    request = pb.PredictListRequest(texts=TEXTS, source="x.com", raw_scores=True)
    config: Any = {"calibrations": {"x.com": "tweets"}}
    result = [item.prediction for item in call(registry, "predict_list", request, **config).items]
    assert [pb.Label.Name(item.label).lower() for item in result] == expected
    assert {item.calibration for item in result} == {"tweets"}
    single = pb.PredictRequest(text=TEXTS[0], source="x.com")
    assert call(registry, "predict", single, **config).prediction.calibration == "tweets"
    plain = call(registry, "predict", pb.PredictRequest(text=TEXTS[0]), **config)
    assert plain.prediction.calibration == ""
    explained = call(registry, "explain", pb.ExplainRequest(text="Up", source="x.com"), **config)
    assert explained.prediction.calibration == "tweets"
    message = refused(registry, "predict", pb.PredictRequest(text="Up", source="y"), Context())
    assert message.startswith("INVALID_ARGUMENT unknown_source: ")


def test_explain_info_and_health(registry: Registry) -> None:
    result = call(registry, "explain", pb.ExplainRequest(text="Profit rose sharply."))
    assert [word.text for word in result.words] == ["Profit", "rose", "sharply."]
    assert result.text[result.words[1].start : result.words[1].end] == "rose"
    champion = registry.aliases()["champion"]
    assert call(registry, "info", pb.InfoRequest()).model_version == champion
    assert call(registry, "health", pb.HealthRequest()).status == "ok"


def test_problems_are_returned_as_statuses(registry: Registry, tmp_path: Path) -> None:
    blank = pb.PredictRequest(text="")
    message = refused(registry, "predict", blank, Context())
    assert message.startswith("INVALID_ARGUMENT invalid_text: ")
    many = pb.PredictListRequest(texts=["a", "b"])
    message = refused(registry, "predict_list", many, Context(), limits=LimitsConfig(texts=1))
    assert message.startswith("INVALID_ARGUMENT too_many_texts: ")
    long = pb.PredictRequest(text="order " * 99, truncate=pb.ERROR)
    assert "text_too_long" in refused(registry, "predict", long, Context())
    odd = pb.PredictRequest(text="Profit rose.", truncate=17)  # type: ignore[arg-type]
    assert "invalid_request" in refused(registry, "predict", odd, Context())
    late = pb.PredictListRequest(texts=["order " * 40] * 500)
    message = refused(registry, "predict_list", late, Context(x_request_timeout_ms="1"))
    assert message.startswith("DEADLINE_EXCEEDED deadline_exceeded: ")

    keys = tmp_path / "keys.json"
    key = new_key(keys, "desk", "predict")
    good = pb.PredictRequest(text="Profit rose.")
    message = refused(registry, "predict", good, Context(), api_keys=str(keys))
    assert message.startswith("UNAUTHENTICATED unauthorized: ")
    allowed = Context(authorization=f"Bearer {key}")
    assert call(registry, "predict", good, allowed, api_keys=str(keys)).prediction.score > 0
    assert call(registry, "health", pb.HealthRequest(), api_keys=str(keys)).status == "ok"


def test_internal_errors_are_counted_and_reveal_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise RuntimeError("/srv/secret")

    counted = []
    monkeypatch.setattr(Service, "answer", fail)
    monkeypatch.setattr(Metrics, "request", lambda _, outcome: counted.append(outcome.status))
    context = Context(x_request_id="desk-3")
    message = refused(registry, "predict", pb.PredictRequest(text="Up"), context)
    assert (
        message == "INTERNAL internal: the server failed. Report request id desk-3 to its operator."
    )
    assert counted == [500]


def test_every_problem_has_a_status() -> None:
    only_http = {404, 405, 415}
    assert {status for status, _ in CODES.values()} - only_http == set(_STATUS_CODES)


def test_generated_code_is_of_the_proto(tmp_path: Path) -> None:
    made = tmp_path / "made"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I.",
            f"--descriptor_set_out={made}",
            "serve_app/proto/sentiment.proto",
        ],
        cwd=ROOT,
        check=True,
    )
    [file] = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    checked_in = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    assert _plain(file) == _plain(checked_in), "run `make proto`"


def _plain(file: descriptor_pb2.FileDescriptorProto) -> str:
    # One says what the other leaves to be derived.
    return "\n".join(line for line in str(file).splitlines() if "json_name" not in line)
