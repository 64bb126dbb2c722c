"""The page for people, and the documentation of the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def pages() -> dict[str, tuple[str, str]]:
    """Content and media type by path."""
    folder = resources.files("serve_app") / "page"
    files = {
        "/": ("index.html", "text/html"),
        "/page.js": ("page.js", "text/javascript"),
        "/page.css": ("page.css", "text/css"),
        "/docs": ("docs.html", "text/html"),
        "/docs.js": ("docs.js", "text/javascript"),
    }
    return {
        path: ((folder / name).read_text(encoding="utf-8"), kind)
        for path, (name, kind) in files.items()
    }


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
