"""The prefix of a proxy below which clients see the service."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_TEMPORARY_REDIRECT = 307


class Mounted:
    """Answers below `serve.root_path`, whether the proxy strips that prefix or passes it on.

    The application then sees its own paths. What it reports of itself (OpenAPI's servers, the path
    of /docs) has the prefix. Nothing is derived from the header `Host`, which the client chooses.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        mount = scope.get("root_path", "")  # Serve's route_prefix
        path = _without_prefix(mount, scope["path"])
        if self._prefix:
            path, mount = _without_prefix(self._prefix, path), self._prefix
        if path == "":  # the page's files are relative to a path that ends in a slash
            await redirect(f"{mount.rpartition('/')[2]}/")(scope, receive, send)
            return
        scope = {**scope, "root_path": mount, "path": f"{mount}{path}"}
        await self._app(scope, receive, send)


def redirect(relative: str) -> Response:
    """Return a redirect to a path relative to the requested one.

    An absolute address would need the host and the prefix that the client sees.
    """
    return Response(status_code=_TEMPORARY_REDIRECT, headers={"location": relative})


def _without_prefix(prefix: str, path: str) -> str:
    """Return a path without the prefix; a path that lacks the prefix is returned unchanged."""
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        return path[len(prefix) :]
    return path
