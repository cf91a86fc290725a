"""The ASGI application: hits from memory in front, images next, the JSON API behind Starlette's router."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from lazypix.composition import begin_jobs, make_delivery, make_renderers, open_listening
from lazypix.delivery import Delivery
from lazypix.dialects.remote import SERVED
from lazypix.errors import Busy, LazypixError, NotFound
from lazypix.faces import BROKEN, READING, not_allowed
from lazypix.http import Answer, envelope, error_answer
from lazypix.library import Library
from lazypix.server.access import WriteAccess, preflight
from lazypix.server.api import Api
from lazypix.server.endpoints import Endpoints
from lazypix.server.forms import ClientGone
from lazypix.server.images import Images
from lazypix.server.keys import KeyEndpoints
from lazypix.server.send import AnswerResponse, request_of, send_answer
from lazypix.server.tickets import TicketEndpoints
from lazypix.server.tus import PLACE, Tus
from lazypix.settings import Settings
from lazypix.stores.local import LocalStore

log = logging.getLogger("lazypix.server")

_TIDY_EVERY_S, _LEFT_OVER_S = 600, 3600
# A read of a folder takes a thread for a moment, one over a network for as long as the service takes.
_READERS_OF_FOLDERS, _READERS_OF_SERVICES = 16, 64
_IO_THREADS = 64


def create(settings: Settings) -> ASGIApp:
    """Make the application of one server process; its parts are opened by the ASGI lifespan."""
    return _Front(settings)


class _Front:
    """What the server calls for every request.

    Stands before Starlette because routing, and the objects it makes, cost as much as a whole hit from memory.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._router = Starlette(
            lifespan=self._lifespan,
            exception_handlers={
                LazypixError: _on_error,
                HTTPException: _on_http_error,
                ClientGone: _on_gone,
                Exception: _on_bug,
            },
        )
        # A redirect would go to whatever the Host header names, and is not what a client of the JSON API expects.
        self._router.router.redirect_slashes = False
        self._delivery: Delivery
        self._preflight = preflight()
        self.is_draining = False
        self._is_ready = True

    def drain(self, *, ready: bool) -> None:
        """Have every answer close its connection from now on; `ready` is what load balancers are told."""
        self.is_draining = True
        self._is_ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except asyncio.CancelledError:  # by the end of the drain only
            with suppress(RuntimeError):  # an answer has begun: its connection is broken off
                await send_answer(error_answer(Busy("The server is being stopped; ask again in a moment")), send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _is_for_image(scope):
            request = request_of(scope)
            answer = self._delivery.cached(request) or await self._images.answer(request, receive)
            if answer is not None:
                await send_answer(answer, send)
        elif scope["method"] == "OPTIONS":
            await send_answer(self._tus.options() if scope["path"].startswith(PLACE) else self._preflight, send)
        else:
            await self._others(scope, receive, send)

    def at_once(self, scope: Scope) -> Answer | None:
        """Return the answer to a request for an image if it lies in memory; see `server.protocol`."""
        return self._delivery.cached(request_of(scope)) if _is_for_image(scope) else None

    async def _others(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._router(scope, receive, send)
        except Exception:  # Starlette has answered 500 already, and raises for the server's log
            log.exception("%s %s failed", scope["method"], scope["path"])

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        # Bodies are sent and received piece by piece in threads; those of a slow store must not be all there are.
        pieces = ThreadPoolExecutor(_IO_THREADS, thread_name_prefix="lazypix-io")
        asyncio.get_running_loop().set_default_executor(pieces)
        async with AsyncExitStack() as opened:
            await self._open(app, opened)
            yield

    async def _open(self, app: Starlette, opened: AsyncExitStack) -> None:
        """Open all parts; what fails leaves none."""
        library = await _opened_library(self._settings)
        opened.push_async_callback(asyncio.to_thread, library.close)
        self._delivery = make_delivery(self._settings, library)
        readers = _READERS_OF_FOLDERS if isinstance(library.store, LocalStore) else _READERS_OF_SERVICES
        if (jobs := begin_jobs(self._settings, library)) is not None:
            opened.push_async_callback(asyncio.to_thread, jobs.close)
        access = WriteAccess(self._settings, library.catalog.keys)
        api = Api(self._settings, access, library, ready=lambda: self._is_ready)
        self._tus = Tus(self._settings, access, library, api.place)
        tickets = TicketEndpoints(self._settings, access, library, api.place)
        keys = KeyEndpoints(self._settings, access, library)
        endpoints: list[Endpoints] = [tickets, api, self._tus, keys]  # an upload with a ticket is not the api's
        for each in endpoints:
            app.router.routes.extend(each.routes())
            opened.push_async_callback(asyncio.to_thread, each.close)
        self._images = Images(self._delivery, self._settings.request_deadline_s, readers)
        opened.callback(self._images.close)
        opened.callback(asyncio.create_task(_keep_tidy(library)).cancel)


async def _opened_library(settings: Settings) -> Library:
    """Open the library in a thread; one that is opened after nobody waits for it any more is closed."""
    # No task, which the end of the event loop would cancel: the thread goes on, and nobody would have what it opens.
    opening = asyncio.get_running_loop().run_in_executor(None, open_listening, settings, make_renderers(settings))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        if opening.exception() is None:
            await asyncio.to_thread(opening.result().close)
        raise


def _is_for_image(scope: Scope) -> bool:
    return scope["method"] in READING and scope["path"].startswith(SERVED)


async def _keep_tidy(library: Library) -> None:
    """Remove what killed processes left on this machine; what they left elsewhere is a job of one machine."""
    while True:
        await asyncio.sleep(_TIDY_EVERY_S)
        try:
            await asyncio.to_thread(library.incoming.sweep, older_than_s=_LEFT_OVER_S)
        except Exception as error:  # noqa: BLE001  # the next time may go better
            log.warning("tidying up failed, and will be tried again: %s", error)


async def _on_error(request: Request, error: Exception) -> AnswerResponse:
    assert isinstance(error, LazypixError)
    if error.status >= 500:
        log.warning("%s %s was answered with %d: %s", request.method, request.url.path, error.status, error)
    return AnswerResponse(error_answer(error))


async def _on_http_error(request: Request, error: Exception) -> AnswerResponse:
    assert isinstance(error, HTTPException)
    # GET and HEAD of an image are answered before the router, which therefore does not know the address.
    if error.status_code == 405 or request.scope["path"].startswith(SERVED):
        return AnswerResponse(not_allowed(request.method, _allowed(request)))
    return AnswerResponse(
        error_answer(NotFound(f"Nothing is served at {request.url.path[:200]}; GET / lists what is"))
    )


def _allowed(request: Request) -> tuple[str, ...]:
    """Return the methods of an address, as the header `Allow` lists them. Source: RFC 9110, 10.2.1."""
    methods = {"OPTIONS"} | ({"GET", "HEAD"} if request.scope["path"].startswith(SERVED) else set())
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods
    return tuple(sorted(methods))


async def _on_bug(_: Request, __: Exception) -> AnswerResponse:
    return AnswerResponse(BROKEN)


async def _on_gone(_: Request, __: Exception) -> AnswerResponse:
    return AnswerResponse(envelope(400, "The client went away"))  # nobody reads it
