"""Access to the service: API keys and CORS origins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from finsent.config import load
from finsent.errors import ConfigError, InputError
from ray_jobs._settings import JobSettings
from serve_app import auth
from serve_app.auth import new_key, read_keys
from tests.unit.api.apps import problem

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


def test_keys_open_what_their_role_allows(
    serving: Callable[..., TestClient], tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    desk, root = new_key(path, "desk", "predict"), new_key(path, "root", "admin")
    assert desk not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    client = serving(api_keys=str(path))
    for headers in ({}, {"authorization": "Bearer no"}, {"x-api-key": ""}, {"authorization": desk}):
        response = client.post("/predict", json={"text": "Up"}, headers=headers)
        problem(response, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
    for headers in ({"authorization": f"Bearer {desk}"}, {"x-api-key": root}):
        assert client.post("/predict", json={"text": "Up"}, headers=headers).status_code == 200
    problem(client.get("/metrics", headers={"x-api-key": desk}), "forbidden")
    assert client.get("/metrics", headers={"x-api-key": root}).status_code == 200
    assert client.get("/readyz").status_code == 200  # probes carry no key
    assert client.get("/").status_code == 200


def test_added_and_deleted_keys_take_effect_without_a_restart(
    serving: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_REFRESH_SECONDS", 0.0)
    path = tmp_path / "keys.json"
    first_key = new_key(path, "first", "predict")
    client = serving(api_keys=str(path))

    def status(key: str) -> int:
        headers = {"x-api-key": key}
        return client.post("/predict", json={"text": "Up"}, headers=headers).status_code

    second = new_key(path, "second", "predict")
    assert (status(first_key), status(second)) == (200, 200)
    keys = json.loads(path.read_text())["keys"]
    path.write_text(json.dumps({"keys": keys[1:]}))
    assert (status(first_key), status(second)) == (401, 200)
    path.write_text("{")  # half a file opens and closes nothing
    assert (status(first_key), status(second)) == (401, 200)


def test_file_of_keys_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    new_key(path, "desk", "predict")
    for name, role in (("desk", "predict"), ("other", "king"), (auth.UNKNOWN, "predict")):
        with pytest.raises(InputError):
            new_key(path, name, role)
    assert [key.name for key in read_keys(path)] == ["desk"]
    path.write_text('{"keys": [{"name": "a", "role": "king", "sha256": "0"}]}')
    with pytest.raises(InputError, match=r"serve\.api_keys=.*new-key"):
        read_keys(path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"^serve\.api_keys=.*not a file of keys"):
        read_keys(path)
    for unreadable in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match=r"^serve\.api_keys=.*cannot read it .*new-key"):
            read_keys(unreadable)
    # Logs and metrics name refused keys so, and count names as texts.
    for bad in (auth.UNKNOWN, 7):
        path.write_text(json.dumps({"keys": [{"name": bad, "role": "admin", "sha256": "0" * 64}]}))
        with pytest.raises(InputError, match="each name must be a text other than 'unknown'"):
            read_keys(path)


def test_other_origins_are_allowed_only_by_name(serving: Callable[..., TestClient]) -> None:
    ask = {"origin": "https://desk.example"}
    closed, opened = serving(), serving(cors_origins=["https://desk.example"])
    assert "access-control-allow-origin" not in closed.get("/health", headers=ask).headers
    result = opened.get("/health", headers=ask).headers
    assert result["access-control-allow-origin"] == "https://desk.example"
    other = opened.get("/health", headers={"origin": "https://evil.example"}).headers
    assert "access-control-allow-origin" not in other


@pytest.mark.parametrize(
    "origin",
    ["desk.example", "https://desk.example/", "https://", "null", "https://desk.example/a b"],
)
def test_invalid_origins_are_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"serve\.cors_origins: .* is not an origin"):
        load(JobSettings, [], [f"serve.cors_origins={json.dumps([origin])}"])
