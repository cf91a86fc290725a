"""Starlette: routes that serve a library's images, its lifespan, and its errors as answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lazypix.catalog import Image
from lazypix.contrib.opening import OneAProcess, open_configured
from lazypix.dialects.native import MOUNT
from lazypix.dialects.remote import SERVED
from lazypix.errors import LazypixError
from lazypix.http import error_answer
from lazypix.library import Library
from lazypix.markup import Tags
from lazypix.server.send import AnswerResponse

REST = "{path:path}"
"""What follows the place of the images, as routes name it."""


class Images:
    """A library in an application: `Starlette(routes=[*images.routes(), …], lifespan=images.lifespan)`.

    It is opened by `open`, when first needed; by default as the settings say. With `remote` the routes are those of
    other servers' images too, `/remote/…`, which the setting `remote_hosts` allows; else that is the application's.
    """

    def __init__(self, open: Callable[[], Library] = open_configured, *, remote: bool = False) -> None:
        self.library = OneAProcess(open)
        """Returns the library of this process; a dependency."""
        self.places = SERVED if remote else (MOUNT,)
        """The paths below which images are served."""

    def routes(self) -> list[Route]:
        """Return the routes of the images; they may stand below a prefix, which `base_url` has to name."""
        return [Route(place + REST, _AnyMethod(self, place)) for place in self.places]

    def tags(self) -> Tags:
        """Return what writes HTML for the images."""
        return Tags(addresses=self.library().addresses)

    def add(self, upload: UploadFile, **options: Any) -> Image:
        """Store an uploaded file, blocking; `options` and errors are those of `Library.add`."""
        return self.library().add(upload.file, **{"filename": upload.filename or None, **options})

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002
        """Open the library when the application starts, and close it at its end."""
        await run_in_threadpool(self.library)
        try:
            yield
        finally:
            await run_in_threadpool(self.library.close)

    def on_error(self, request: Request, error: Exception) -> Response:  # noqa: ARG002
        """Answer an error of lazypix; for `exception_handlers={LazypixError: images.on_error}`."""
        assert isinstance(error, LazypixError)
        return AnswerResponse(error_answer(error))

    async def answer(self, scope: Scope, receive: Receive, send: Send, *, place: str = MOUNT) -> None:
        """Answer a request that was routed here, by the route of one of the `places`."""
        mount = scope["path"].removesuffix(place + scope["path_params"]["path"])
        await self.library().asgi.answer(scope, receive, send, mount=mount)


class _AnyMethod:
    """An ASGI application, so that Starlette leaves all methods to it."""

    def __init__(self, images: Images, place: str) -> None:
        self._images = images
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._images.answer(scope, receive, send, place=self._place)
