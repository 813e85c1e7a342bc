"""The application: its routes are made of the declared doors and of nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from finllm.web.doors import Door
from finllm.web.guard import Guarded, told
from finllm.web.pages import all_doors
from finllm.web.serving import Serving
from finllm.web.shell import Shell


def create_app(serving: Serving, doors: Sequence[Door] | None = None) -> Starlette:
    """The desk's pages on what they share. The host is looked at before anything else is."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with serving.running():
            yield

    app = Starlette(
        routes=[route_of(door, serving) for door in (all_doors() if doors is None else doors)],
        middleware=[
            Middleware(Shell, tls=serving.tls),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(serving.hosts), www_redirect=False),
        ],
        exception_handlers={404: _nowhere, 405: _nowhere},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def route_of(door: Door, serving: Serving) -> Route:
    return Route(door.path, Guarded(door, serving), methods=[door.method])


async def _nowhere(request: Request, error: Exception) -> Response:
    """The same for a page that there is not and a method that none has: no list of what there is."""
    del request, error
    return told(404, "Not here", "there is no such page", "go to the first page: /")
