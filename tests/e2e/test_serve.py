"""The service as users run it: a real command, real HTTP, a real browser, versions that change."""

from __future__ import annotations

import os
import re
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from playwright.sync_api import Page

from finsent.prediction_log import LoggedPrediction, read, verify
from finsent.storage import Location
from serve_app.proto import sentiment_pb2 as pb
from serve_app.proto import sentiment_pb2_grpc
from tests.commands import invoke_job, wait_until
from tests.served import Served, gateways, listeners
from tests.unit.models import TEXTS


def test_it_answers_over_http(served: Served) -> None:
    prediction = served.ask()
    assert prediction["label"] in ("negative", "neutral", "positive")
    assert prediction["model_version"] == served.registry.aliases()["champion"]
    response = httpx.post(
        f"{served.address}/predict",
        json={"texts": TEXTS},
        headers={"x-request-id": "desk-1"},
        timeout=30,
    )
    assert response.headers.get_list("x-request-id") == ["desk-1"]
    assert response.json()["request_id"] == "desk-1"
    # The load balancer says when a request came; what a client says about that does not count.
    stale = httpx.post(
        f"{served.address}/predict",
        json={"text": "Up"},
        headers={"x-request-start": "t=1000"},
        timeout=30,
    )
    assert stale.status_code == 200
    refused = httpx.post(f"{served.address}/predict", content=b"{", timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_json")
    late = httpx.post(
        f"{served.address}/predict",
        json={"texts": ["order " * 60] * 1000},
        headers={"x-request-timeout-ms": "1"},
        timeout=30,
    )
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    # Clients of other servers: `/` is theirs as well as the page's.
    [ranking] = httpx.post(f"{served.address}/", json={"inputs": TEXTS[0]}, timeout=30).json()
    classified = httpx.post(f"{served.address}/classify", json={"input": TEXTS[0]}, timeout=30)
    assert classified.json()["data"][0]["label"] == ranking[0]["label"]
    refused = httpx.post(f"{served.address}/v1/classify", content=b"{", timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, 400)
    assert "finsent_requests_total" in httpx.get(f"{served.address}/metrics", timeout=30).text


def test_a_request_that_does_not_come_is_not_held(served: Served) -> None:
    host, _, port = served.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def test_it_answers_over_grpc_which_tells_what_it_can(served: Served) -> None:
    with grpc.insecure_channel(served.grpc_address) as channel:
        response = sentiment_pb2_grpc.SentimentStub(channel).PredictList(
            pb.PredictListRequest(texts=["Profit rose.", ""]), timeout=30
        )
        answer = served.ask("Profit rose.")
        good, blank = response.items
        assert pb.Label.Name(good.prediction.label) == answer["label"].upper()
        assert good.prediction.score == pytest.approx(answer["score"], abs=1e-5)
        assert blank.problem.code == "invalid_text"
        with pytest.raises(grpc.RpcError) as error:
            sentiment_pb2_grpc.SentimentStub(channel).Predict(pb.PredictRequest(), timeout=30)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "invalid_text" in error.value.details()
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert "finsent.v1.Sentiment" in services


def test_a_failed_request_is_in_the_log_at_once(served: Served) -> None:
    match = re.search(r"logs: (\S+)", (served.root / "serve.log").read_text())
    assert match
    response = httpx.post(
        f"{served.address}/predict",
        json={"text": ""},
        headers={"x-request-id": "find-me-please"},
        timeout=30,
    )
    assert response.status_code == 422

    def written() -> bool:
        files = Path(match[1]).glob("replica_*Gateway*.log")
        return any("find-me-please" in file.read_text() for file in files)

    # No later request flushes the line.
    wait_until(written, 20, "the line of the request")


def test_other_users_cannot_reach_rays_sockets_and_logs(served: Served) -> None:
    match = re.search(r"logs: (\S+)", (served.root / "serve.log").read_text())
    assert match
    [session] = [parent for parent in Path(match[1]).parents if parent.name.startswith("session_2")]
    assert [*session.glob("sockets/*")]
    private = session.parent.parent
    assert private.stat().st_mode & 0o777 == 0o700
    assert private.stat().st_uid == os.geteuid()


def test_grpc_refuses_what_is_too_large_before_it_takes_memory(served: Served) -> None:
    [gateway, *_] = gateways(served)
    before = gateway.memory_info().rss
    options = [("grpc.max_send_message_length", -1)]
    huge = pb.PredictListRequest(texts=["a" * (100 << 20)])
    with grpc.insecure_channel(served.grpc_address, options=options) as channel:
        stub = sentiment_pb2_grpc.SentimentStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.PredictList(huge, timeout=60)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert stub.Predict(pb.PredictRequest(text="Up"), timeout=60).prediction.score > 0
    assert gateway.memory_info().rss - before < 50 << 20


def test_it_listens_where_it_says_and_nowhere_else(served: Served) -> None:
    """serve_app/README.md has the table of ports."""
    sockets = listeners(psutil.Process(served.process.pid))
    assert {host for host, _, _ in sockets} == {"127.0.0.1"}
    ranges = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    # Ray's own processes have ports that the system picks.
    fixed = {port for _, port, _ in sockets if port < int(ranges[0])}
    printed = {
        int(address.rpartition(":")[2]) for address in (served.address, served.grpc_address)
    } | {int(port) for port in served.ports.values() if port.isdigit()}
    assert printed <= fixed
    for name in ("replicas_http", "replicas_grpc"):
        first, last = map(int, served.ports[name].split("-"))
        replicas = {port for port in fixed if first <= port <= last}
        assert replicas
        fixed -= replicas
    assert fixed == printed
    assert all(port in printed for _, port, title in sockets if "haproxy -db" in title)


def test_haproxy_obeys_only_this_user(served: Served) -> None:
    [command] = {
        title
        for _, _, title in listeners(psutil.Process(served.process.pid))
        if "haproxy -db" in title
    }
    config = Path(command.split(" -f ")[1].split()[0])
    directory = config.parents[1]
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (config.parent / "admin.sock").stat().st_mode & 0o777 == 0o600


def test_branches_see_what_clients_asked(served: Served) -> None:
    text = f"Sales of unit {served.process.pid} fell."
    answer = served.ask(text)
    root = Location.at(served.root)

    def recorded() -> list[LoggedPrediction]:
        rows = [LoggedPrediction.from_row(row) for batch in read(root) for row in batch.to_pylist()]
        return [row for row in rows if row.request_id == answer["request_id"]]

    wait_until(lambda: bool(recorded()), 120, "the answer in the prediction log")
    [row] = recorded()
    assert (row.label, row.characters, row.text) == (answer["label"], len(text), None)
    assert row.probabilities == answer["probabilities"]
    assert verify(root).problems == ()

    def compared() -> list[dict[str, Any]]:
        shadow = httpx.get(f"{served.address}/info", timeout=30).json()["shadow"]
        assert shadow["model"] == "challenger"
        pairs: list[dict[str, Any]] = shadow.get("pairs", [])
        return pairs

    wait_until(lambda: bool(compared()), 120, "the shadow's counts")
    pair = compared()[-1]
    assert pair["shadow_version"] == served.registry.aliases()["challenger"]
    assert pair["texts"] >= 1


def test_explanations_have_a_process_of_their_own(served: Served) -> None:
    def predictions() -> float:
        lines = httpx.get(f"{served.address}/metrics", timeout=30).text.splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith("finsent_predictions_total")
        )

    # Each replica counts its own.
    wait_until(lambda: len(gateways(served)) == 1, 120, "one replica")
    before = predictions()
    explanation = httpx.post(
        f"{served.address}/explain", json={"text": "Profit rose sharply."}, timeout=30
    ).json()
    assert [word["text"] for word in explanation["words"]] == ["Profit", "rose", "sharply."]
    assert explanation["label"] == served.ask("Profit rose sharply.")["label"]
    assert predictions() == before + 1  # the gateway's own
    refused = httpx.post(f"{served.address}/explain", json={"text": " "}, timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_text")


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    ports = {int(socket.rpartition(":")[2]) for socket in (served.address, served.grpc_address)}
    open_ports: list[Any] = [
        socket.laddr
        for socket in psutil.net_connections("tcp")
        if socket.status == psutil.CONN_LISTEN
    ]
    assert {socket.ip for socket in open_ports if socket.port in ports} == {"127.0.0.1"}


def test_promoting_changes_the_version_under_load_without_a_failed_request(
    served: Served,
) -> None:
    first, second = (served.registry.aliases()[name] for name in ("champion", "challenger"))
    end, failures, seen = threading.Event(), [], []

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not end.is_set():
                response = client.post(f"{served.address}/predict", json={"text": "Profit rose."})
                if response.status_code == 200:
                    seen.append(response.json()["model_version"])
                else:
                    failures.append(response.text)

    def answers_with(version: str) -> bool:
        return seen[-8:] == [version] * 8

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        registry = served.registry
        for version in (second, first, second):
            registry.promote(version, "champion")
            wait_until(partial(answers_with, version), 120, "the new version to answer")
        registry.rollback("champion")
        wait_until(partial(answers_with, first), 120, "the old version to answer")
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert set(seen) == {first, second}


# --- the page -------------------------------------------------------------------------------------


def test_page_shows_label_bars_and_words(home: Page, served: Served) -> None:
    text = "Harrow cut its outlook, and the shares fell."
    expected = served.ask(text)
    home.locator("#model", has_text=expected["model_version"]).wait_for()
    home.locator("#text").fill(text)
    home.keyboard.press("Control+Enter")  # by keyboard alone
    home.locator("#words .word").first.wait_for()
    assert home.locator("#one-label").inner_text().startswith(expected["label"])
    widths = home.locator(".fill").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().width / "
        "one.parentElement.getBoundingClientRect().width)"
    )
    assert widths == pytest.approx([*expected["probabilities"].values()], abs=0.02)
    assert home.locator("#words").inner_text() == text
    weights = home.locator("#words .word").evaluate_all("all => all.map(one => one.dataset.weight)")
    assert len(weights) == len(text.split())
    assert all(re.fullmatch(r"[+-]\d+\.\d points", weight) for weight in weights)


def test_docs_are_a_page_without_outside_help(home: Page, served: Served) -> None:
    home.goto(f"{served.address}/docs")
    home.locator("h2", has_text="POST /predict/file").wait_for()
    assert home.locator("section").count() > 10


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve.model=nobody"], ["serve.model='nobody'", "known: challenger, champion"]),
        (["serve.shadow=nobody"], ["serve.shadow='nobody'", "known: challenger, champion"]),
        (["serve.max_replicas=0"], ["serve.max_replicas"]),
        (["serve.min_replicas=3", "serve.max_replicas=2"], ["max_replicas=2", "min_replicas=3"]),
        (["serve.api_keys=none.json"], ["serve.api_keys=", "none.json"]),
        (["serve.host=no.invalid", "port=0"], ["serve.host='no.invalid'", "cannot listen there"]),
        (["start"], ["new-key NAME ROLE"]),
        (["new-key", "desk", "predict"], ["serve.api_keys"]),
    ],
)
def test_what_cannot_be_served_is_said_before_ray_starts(
    served_root: Path, project: Path, arguments: list[str], words: list[str]
) -> None:
    refused = invoke_job("serve", f"storage.root={served_root}", *arguments)
    assert refused.code == 2, refused.err
    assert len(refused.err.strip().splitlines()) == 1, "and not that Ray starts"
    assert all(word in refused.err for word in words), refused.err
    assert [path.name for path in project.iterdir()] == ["configs"]


def test_port_that_is_taken_is_named(served: Served) -> None:
    port = served.address.rpartition(":")[2]
    refused = invoke_job("serve", f"storage.root={served.root}", f"port={port}")
    assert refused.code == 2
    assert f"serve.port={port}: cannot listen there" in refused.err


def test_keys_are_made_by_the_command(project: Path) -> None:
    made = invoke_job("serve", "api_keys=keys.json", "new-key", "desk", "predict")
    assert made.code == 0, made.err
    assert made.result["key"] not in (project / "keys.json").read_text()
    assert (project / "keys.json").stat().st_mode & 0o077 == 0
