"""Where the service is, as clients see it: below a proxy's prefix, and never elsewhere."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

_TEMPORARY = 307


class Mounted:
    """Answers below `serve.root_path`, whether the proxy strips that prefix or passes it on.

    The application then sees its own paths; what it says of itself (OpenAPI's servers, where /docs
    is) has the prefix. Nothing is derived from the header `Host`, which is the client's to choose.
    """

    def __init__(self, app: Any, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        below = scope.get("root_path", "")  # Serve's route_prefix
        path = _without(below, scope["path"])
        mount = below
        if self._prefix:
            path, mount = _without(self._prefix, path), self._prefix
        if path == "":  # the page's files are relative to a path that ends in a slash
            await elsewhere(f"{mount.rpartition('/')[2]}/")(scope, receive, send)
            return
        scope = {**scope, "root_path": mount, "path": f"{mount}{path}"}
        await self._app(scope, receive, send)


def elsewhere(relative: str) -> Response:
    """Answer that something is at another path, relative to the one that was asked for.

    An absolute address would need the host and the prefix that the client sees.
    """
    return Response(status_code=_TEMPORARY, headers={"location": relative})


def _without(prefix: str, path: str) -> str:
    """Return the rest of a path that begins with a prefix; other paths as they are."""
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        return path[len(prefix) :]
    return path
