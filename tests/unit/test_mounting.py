"""The service's paths: slashes at their end, a proxy's prefix, and no address made of `Host`."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from finsent.config import load
from finsent.errors import ConfigError
from finsent.inference.config import EngineConfig
from ray_jobs._settings import JobSettings
from serve_app.auth import Keys
from serve_app.config import ServeConfig
from serve_app.http.app import build_app
from serve_app.launch.ports import LOOPBACK, free_port
from serve_app.service.service import Service
from tests.commands import wait_until

PREFIX = "/ai/sentiment"
PATHS = (
    *("/predict", "/explain", "/predict/file", "/info", "/metrics", "/health", "/readyz", "/livez"),
    *("/model-card", "/docs", "/docs.js", "/page.js", "/page.css", "/openapi.json", "/nothing"),
)
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")


def make_app(root_path: str = "") -> Any:
    """A service without a model, whose paths answer."""
    config = ServeConfig(root_path=root_path, watch_seconds=0)
    return build_app(Service(Path("/nowhere"), config, EngineConfig()), Keys(None))


@pytest.mark.parametrize("root_path", ["", PREFIX])
def test_no_redirect_names_the_host_header(root_path: str) -> None:
    with TestClient(make_app(root_path), follow_redirects=False) as client:
        for path in (*PATHS, "", "/", PREFIX):
            for end in ("", "/", "//", "?a=/b/"):
                for method in ("GET", "POST"):
                    answer = client.request(
                        method, f"{path}{end}" or "/", headers={"host": "evil.example"}
                    )
                    location = urlsplit(answer.headers.get("location", ""))
                    assert (location.scheme, location.netloc) == ("", ""), (method, path, end)
                    assert "evil.example" not in answer.text


def test_a_trailing_slash_changes_nothing() -> None:
    with TestClient(make_app(), follow_redirects=False) as client:
        result = client.post("/predict/", json={"text": "Up"})
        assert (result.status_code, result.json()["code"]) == (503, "not_ready")  # not 404
        assert client.get("/livez/").json() == {"status": "ok"}
        assert client.get("/predict/").status_code == 405
        assert client.get("/nothing/").status_code == 404
        assert client.get("/docs/").headers["location"] == "../docs"
        text = client.get("/metrics").text
    assert 'finsent_requests_total{operation="predict",status="503"} 1.0' in text


def test_a_prefix_may_be_stripped_or_not() -> None:
    with TestClient(make_app(PREFIX), follow_redirects=False) as client:
        for before in ("", PREFIX):
            assert client.get(f"{before}/livez").json() == {"status": "ok"}
            assert client.get(f"{before}/openapi.json").json()["servers"] == [{"url": PREFIX}]
            missing = client.get(f"{before}/nothing").json()
            assert missing["detail"].endswith(f"See {PREFIX}/docs for the operations.")
        assert client.get("/ai/sentimental/livez").status_code == 404
        # The page's files are below it, not beside it.
        assert client.get(PREFIX).headers["location"] == "sentiment/"
    with TestClient(make_app()) as client:
        assert "servers" not in client.get("/openapi.json").json()


def test_the_route_prefix_of_serve_is_respected() -> None:
    """Serve puts the prefix into the scope and leaves it in the path."""
    with TestClient(make_app(), root_path="/team", follow_redirects=False) as client:
        assert client.get("/team/livez").json() == {"status": "ok"}
        assert client.get("/team/openapi.json").json()["servers"] == [{"url": "/team"}]
        assert client.get("/team").headers["location"] == "team/"
    with TestClient(make_app(PREFIX), root_path="/team") as client:
        assert client.get("/team/livez").json() == {"status": "ok"}
        assert client.get("/team/openapi.json").json()["servers"] == [{"url": PREFIX}]


@pytest.mark.parametrize(
    "value",
    ["ai", "/ai/", "https://desk.example/ai", "/a b", "/ai?x", "/", "/..", "/a/../b", "/.", "/a/."],
)
def test_invalid_prefixes_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"serve\.root_path=.*: must be empty, or begin with /"):
        load(JobSettings, [], [f"serve.root_path={json.dumps(value)}"])


@pytest.mark.parametrize("value", ["", "/ai", "/ai/v1.2", "/.well-known/ai", "/..a/~desk"])
def test_a_prefix_may_have_dots(value: str) -> None:
    assert ServeConfig(root_path=value).root_path == value


# --- behind a real nginx --------------------------------------------------------------------------


@contextmanager
def listening(root_path: str) -> Iterator[int]:
    """Run a service on its own port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(make_app(root_path), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [probe]})
        thread.start()
        try:
            wait_until(lambda: server.started, 20, "the service to start")
            yield probe.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


@contextmanager
def proxied(folder: Path, upstream: str) -> Iterator[str]:
    """Yield the address of an nginx that has the service below `PREFIX`."""
    port = free_port(LOOPBACK)  # outside the range of clients' ports
    config = folder / "nginx.conf"
    config.write_text(
        f"""
        daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
        events {{ worker_connections 64; }}
        http {{
            access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            server {{
                listen 127.0.0.1:{port};
                location {PREFIX}/ {{ proxy_pass {upstream}; }}
            }}
        }}
        """
    )
    assert NGINX
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config)])
    try:

        def open_() -> bool:
            assert process.poll() is None, (folder / "error.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(open_, 20, "nginx to listen")
        yield f"http://127.0.0.1:{port}{PREFIX}/"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx")
@pytest.mark.parametrize("strips", [True, False])
def test_all_paths_work_behind_nginx(tmp_path: Path, strips: bool) -> None:
    with (
        listening(PREFIX) as port,
        proxied(tmp_path, f"http://127.0.0.1:{port}{'/' if strips else ''}") as home,
        httpx.Client(timeout=20) as client,
    ):
        for path in ("predict", "predict/"):
            result = client.post(f"{home}{path}", json={"text": "Up"})
            assert (result.status_code, result.json()["code"]) == (503, "not_ready")
        [server] = client.get(f"{home}openapi.json").json()["servers"]
        assert client.get(f"{urljoin(home, server['url'])}/livez").json() == {"status": "ok"}
        for page in ("", "docs"):
            html = client.get(f"{home}{page}").raise_for_status().text
            links = re.findall(r'(?:src|href)="([^"]+)"', html)
            assert len(links) >= 3
            for link in links:
                address = urljoin(f"{home}{page}", link)
                if link.startswith("data:"):
                    continue
                assert address.startswith(home)
                assert client.get(address).status_code in (200, 503), link  # /info: no model
        docs = client.get(f"{home}docs/", follow_redirects=True)
        assert str(docs.url) == f"{home}docs"
        # nginx sends a path without its slash on by itself.
        response = client.get(home.rstrip("/"), follow_redirects=True)
        assert str(response.url) == home
