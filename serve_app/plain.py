"""The service on one uvicorn without Ray: to measure the cost of Ray, and to debug.

python -m serve_app.plain configs/demo.yaml [key=value ...]
"""

from __future__ import annotations

import sys

import uvicorn
import uvloop

from finsent.rollout.rollouts import Rollouts
from serve_app.auth import Keys
from serve_app.http.app import build_app
from serve_app.rollout.router import CanaryRouter
from serve_app.service.service import Service
from serve_app.settings import ServiceSettings, load_service


async def serve(settings: ServiceSettings) -> None:
    """Load the model and answer until a signal ends the process."""
    service = Service(settings.workspace.registry, settings.serve, settings.engine)
    service.router = CanaryRouter(service, Rollouts(settings.workspace.root, service.registry))
    await service.models.follow()
    keys = Keys(settings.serve.keys_file)
    config = uvicorn.Config(
        build_app(service, keys),
        settings.serve.host,
        settings.serve.port,
        log_level="warning",
        access_log=False,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    files = [argument for argument in sys.argv[1:] if "=" not in argument]
    overrides = [argument for argument in sys.argv[1:] if "=" in argument]
    uvloop.run(serve(load_service(files, overrides)))
