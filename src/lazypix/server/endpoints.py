"""What all routes of the server share: who may ask, blocking work done in threads, answers sent."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.routing import Route

from lazypix.credentials import Scope
from lazypix.errors import Busy
from lazypix.http import Answer
from lazypix.library import Library
from lazypix.server.access import WriteAccess, Writer
from lazypix.server.send import AnswerResponse
from lazypix.settings import Settings

LOOKERS = 16

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Answer]]
Endpoint = Callable[[Request], Awaitable[AnswerResponse]]
Place = Callable[[], AbstractAsyncContextManager[None]]


class Endpoints(ABC):
    """Some routes of the server. Closed when it ends."""

    def __init__(self, settings: Settings, access: WriteAccess, library: Library) -> None:
        self._settings = settings
        self._access = access
        self._library = library
        self._looking = ThreadPoolExecutor(LOOKERS, thread_name_prefix="lazypix-api")

    @abstractmethod
    def routes(self) -> list[Route]:
        """Return the routes, for Starlette's router."""

    def close(self) -> None:
        """Wait for what is being done in threads."""
        self._looking.shutdown(wait=True, cancel_futures=True)

    def _writing(self, handle: Handler, scope: Scope = "upload") -> Endpoint:
        """Make an endpoint for who has a key of this scope; `request.state` tells who: `caller` and `owner`."""

        async def endpoint(request: Request) -> AnswerResponse:
            writer = await self._in_time(self._access.check, request.headers, scope)
            request.state.caller, request.state.owner = writer.caller, writer.owner
            return AnswerResponse(await handle(request))

        return endpoint

    def _identified(self, handle: Callable[[Request, Writer | None], Awaitable[Answer]]) -> Endpoint:
        """Make an endpoint for who has a key, whatever it may do; None where none is needed."""

        async def endpoint(request: Request) -> AnswerResponse:
            return AnswerResponse(await handle(request, await self._in_time(self._access.identify, request.headers)))

        return endpoint

    def _answering(self, handle: Handler) -> Endpoint:
        """Make an endpoint for everybody."""

        async def endpoint(request: Request) -> AnswerResponse:
            return AnswerResponse(await handle(request))

        return endpoint

    def _owner(self, request: Request) -> str | None:
        """Return whose image it will be that this request uploads; None: nobody's in particular."""
        owner: str | None = request.state.owner
        return owner

    async def _in_time(
        self,
        work: Callable[..., T],
        *args: Any,
        pool: ThreadPoolExecutor | None = None,
        seconds: float | None = None,
        **options: Any,
    ) -> T:
        """Do blocking work in a thread; a store or catalog that hangs is not waited for longer than for an image."""
        seconds = seconds or self._settings.request_deadline_s
        task = asyncio.get_running_loop().run_in_executor(pool or self._looking, partial(work, *args, **options))
        try:
            return await asyncio.wait_for(task, seconds)
        except TimeoutError:
            raise Busy(f"Store or catalog did not answer within {seconds:g} seconds; ask again later") from None


class StoringEndpoints(Endpoints):
    """Routes that store what they receive. `place` holds one of the places for uploads, which all of them share."""

    def __init__(self, settings: Settings, access: WriteAccess, library: Library, place: Place) -> None:
        super().__init__(settings, access, library)
        self._place = place
        # Storing waits for the image's decoding, or for the store; it must not keep others from their threads.
        self._storing = ThreadPoolExecutor(settings.uploads, thread_name_prefix="lazypix-storing")

    def close(self) -> None:
        """Finish what is being stored."""
        self._storing.shutdown(wait=True)
        super().close()


async def finish_first(work: Awaitable[T]) -> T:
    """Await work that runs in a thread to its end, also when the server cannot wait any more.

    What is stored by then is acknowledged: its client had better know.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        return task.result()
