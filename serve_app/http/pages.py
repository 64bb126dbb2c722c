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
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_PATHS = {"/index.html": "/", "/docs.html": "/docs"}


def pages() -> dict[str, tuple[str, str]]:
    """Return content and media type by path."""
    contents = {}
    for file in (resources.files("serve_app") / "page").iterdir():
        path, media_type = f"/{file.name}", _MEDIA_TYPES.get(PurePath(file.name).suffix)
        if media_type is not None:
            contents[_PATHS.get(path, path)] = (file.read_text(encoding="utf-8"), media_type)
    return contents


def static(content: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for a file of the page, which may load nothing from other hosts."""

    async def endpoint(_: Request) -> Response:
        return HTMLResponse(content, headers=_HEADERS, media_type=media_type)

    return endpoint
