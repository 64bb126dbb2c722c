"""The page for people, and the documentation of the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_PATHS = {"/index.html": "/", "/docs.html": "/docs"}


def pages() -> dict[str, tuple[str, str]]:
    """Content and media type by path."""
    folder = resources.files("serve_app") / "page"
    found = {}
    for file in folder.iterdir():
        path, kind = f"/{file.name}", _KINDS.get(PurePath(file.name).suffix)
        if kind is not None:
            found[_PATHS.get(path, path)] = (file.read_text(encoding="utf-8"), kind)
    return found


def static(content: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that answers so, and lets the page load nothing from elsewhere."""
    headers = {
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }

    async def endpoint(_: Request) -> Response:
        return HTMLResponse(content, headers=headers, media_type=kind)

    return endpoint
