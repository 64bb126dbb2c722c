"""The HTTP application (ASGI) of one replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.auth import Keys
from serve_app.http.api import Api
from serve_app.http.endpoints import Endpoints
from serve_app.http.mounting import Mounted, redirect
from serve_app.http.pages import pages, static
from serve_app.http.responses import json_response
from serve_app.info import Explain, ShadowReporter
from serve_app.metrics import Metrics
from serve_app.openapi import describe
from serve_app.pipeline import Pipeline
from serve_app.service.explain import explain
from serve_app.service.service import Service
from serve_app.tracing import Tracer


def build_app(
    service: Service,
    keys: Keys,
    metrics: Metrics | None = None,
    explain_by: Explain | None = None,
    shadow: ShadowReporter | None = None,
    *,
    returns_id: bool = True,
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> Starlette:
    """Return the ASGI application of one replica.

    Args:
        metrics: None: the application makes its own.
        explain_by: explains texts; None: the service itself does.
        shadow: reports how the shadow compares; None: the service has no shadow.
        returns_id: put the request's id into the response headers; Serve itself does that.
        at_end: awaited after the last request, when the replica ends.

    Raises:
        InputError: packages for `serve.otlp_endpoint` are missing.
        ConfigError: `serve.otlp_endpoint` is not an address.
    """
    metrics = metrics or Metrics(service)
    collector = service.config.otlp_endpoint
    tracer = None if collector is None else Tracer(collector)
    endpoints = Endpoints(service, Pipeline(service, keys, metrics, tracer), returns_id)
    api = Api(service, metrics, explain_by or partial(explain, service), shadow)

    app = Starlette(
        routes=_routes(service, endpoints, api),
        lifespan=_lifespan(service, tracer, at_end),
        exception_handlers={404: endpoints.unknown, 405: endpoints.unknown},
    )
    # A redirect would name the host of the client's header `Host`, and miss a proxy's prefix.
    app.router.redirect_slashes = False
    if service.config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=[
                "authorization",
                "content-type",
                "x-api-key",
                "x-request-timeout-ms",
                service.config.canary_header,
            ],
        )
    app.add_middleware(Mounted, prefix=service.config.root_path)  # the outermost
    return app


def _lifespan(
    service: Service, tracer: Tracer | None, at_end: Callable[[], Awaitable[None]] | None
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        router = service.router
        watching = [asyncio.create_task(service.models.watch())]
        if router is not None:
            watching.append(asyncio.create_task(router.watch()))
        yield
        for task in watching:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if router is not None:
            await router.close()
        if at_end is not None:
            await at_end()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)

    return lifespan


def _routes(service: Service, endpoints: Endpoints, api: Api) -> list[Route]:
    operations = [(route, endpoints.endpoint(route)) for route in api.routes()]
    return [
        # A slash at the end is often a slip, and never another operation.
        *(
            Route(f"{route.path.rstrip('/')}{end}" or "/", endpoint, methods=[route.method])
            for end in ("", "/")
            for route, endpoint in operations
        ),
        *(
            Route(path, static(content, media_type))
            for path, (content, media_type) in pages().items()
        ),
        # The files of the page are relative to the path without a slash.
        Route("/docs/", _to_docs),
        Route("/openapi.json", partial(_openapi, service)),
    ]


async def _to_docs(_: Request) -> Response:
    return redirect("../docs")


async def _openapi(service: Service, request: Request) -> Response:
    document = describe(service.config.limits)
    if root_path := request.scope.get("root_path", "").rstrip("/"):
        document["servers"] = [{"url": root_path}]
    return json_response(document)
