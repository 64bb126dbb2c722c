"""The dashboard and the API of jobs answer only to the cluster's token: docs/security.md."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Cluster

ENTRYPOINT: dict[str, object] = {"entrypoint": "touch /tmp/never"}
REQUESTS: tuple[tuple[str, str, dict[str, object] | None], ...] = (
    ("GET", "/api/jobs/", None),
    ("POST", "/api/jobs/", ENTRYPOINT),  # ShadowRay, CVE-2023-48022
    ("DELETE", "/api/jobs/never", None),  # CVE-2026-27482
    ("DELETE", "/api/serve/applications/", None),  # CVE-2026-27482
    ("PUT", "/api/serve/applications/", {"applications": []}),
    ("GET", "/api/cluster_status", None),
)


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer 0123456789abcdef"}])
def test_requests_without_the_token_are_refused(
    cluster: Cluster,
    method: str,
    path: str,
    body: dict[str, object] | None,
    headers: dict[str, str],
) -> None:
    response = httpx.request(
        method, f"{cluster.dashboard}{path}", json=body, headers=headers, timeout=60
    )
    assert response.status_code in (401, 403), response.text


def test_requests_with_the_token_are_answered(cluster: Cluster) -> None:
    token = Path(cluster.env["RAY_AUTH_TOKEN_PATH"]).read_text("utf-8")
    response = httpx.get(
        f"{cluster.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, timeout=60
    )
    assert response.status_code == 200
    assert all(job["entrypoint"] != ENTRYPOINT["entrypoint"] for job in response.json())
