"""FastAPI: a router that serves a library's images, and documents them; the library as a dependency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from fastapi import APIRouter, FastAPI
except ImportError as error:
    raise ImportError('FastAPI is not installed: pip install "lazypix[fastapi]"') from error
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lazypix.contrib import starlette
from lazypix.dialects.native import MOUNT
from lazypix.dialects.remote import REMOTE
from lazypix.errors import LazypixError
from lazypix.formats import WRITABLE, by_name

_OTHER_METHODS = ["HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
_ENVELOPE = {
    "type": "object",
    "properties": {"status": {"const": "error"}, "content": {"type": "string"}},
    "required": ["status", "content"],
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REFUSALS = {
    400: "The address is wrong.",
    403: "The link is not signed, or has expired.",
    404: "There is no such image.",
    503: "Too busy; ask again later (Retry-After).",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image.", "content": {by_name(name).mime: _BINARY for name in WRITABLE}},
    206: {"description": "A part of the image (Range)."},
    304: {"description": "The client has it already (If-None-Match, If-Modified-Since)."},
    **{
        status: {"description": what, "content": {"application/json": {"schema": _ENVELOPE}}}
        for status, what in _REFUSALS.items()
    },
}
_REMOTE_RESPONSES: dict[int | str, dict[str, Any]] = {
    **_RESPONSES,
    404: {
        **_RESPONSES[404],
        "description": "There is nothing at this URL, or images of other servers are not shown.",
    },
    415: {**_RESPONSES[404], "description": "What is at this URL is no image."},
    502: {**_RESPONSES[404], "description": "The other server does not answer, or with an error."},
}
# Not a parameter of the function: FastAPI would refuse what is missing or wrong in its own way, before we are asked.
_URL = {
    "name": "url",
    "in": "query",
    "required": True,
    "description": "Where the image is: http or https, at one of the hosts that the setting `remote_hosts` names.",
    "schema": {"type": "string", "format": "uri"},
}


class Images(starlette.Images):
    """A library in an application: `FastAPI(lifespan=images.lifespan)`, then `images.install(app)`.

    `Depends(images.library)` gives functions the library. Those that store or make images block, so they are
    `def`, not `async def`.
    """

    def install(self, app: FastAPI, *, prefix: str = "") -> None:
        """Serve the images below a prefix, which `base_url` has to name too, and answer errors of lazypix."""
        app.include_router(self.router(), prefix=prefix)
        app.add_exception_handler(LazypixError, self.on_error)

    def router(self) -> APIRouter:
        """Return the router of the images; include it with dependencies where not everybody may see them."""
        router = APIRouter(tags=["images"])

        def image(path: str) -> Response:  # noqa: ARG001  # the path as it was received is what counts
            """Return a variant: `/image/<transform>/<ident>.<extension>`."""
            return _Answered(self, MOUNT)

        def remote(path: str) -> Response:  # noqa: ARG001  # as above
            """Return a variant of another server's image: `/remote/<transform>.<extension>?url=<URL>`."""
            return _Answered(self, REMOTE)

        _add(router, MOUNT, image, responses=_RESPONSES)
        if REMOTE in self.places:
            _add(router, REMOTE, remote, responses=_REMOTE_RESPONSES, openapi_extra={"parameters": [_URL]})
        return router


def _add(router: APIRouter, place: str, function: Callable[[str], Response], **described: Any) -> None:
    pattern = place + starlette.REST
    router.add_api_route(
        pattern, function, methods=["GET"], response_class=Response, name=function.__name__, **described
    )
    router.add_api_route(pattern, function, methods=_OTHER_METHODS, include_in_schema=False)


class _Answered(Response):
    """Has the request answered by the library, after FastAPI's dependencies have let it pass."""

    def __init__(self, images: Images, place: str) -> None:
        super().__init__()
        self._images = images
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._images.answer(scope, receive, send, place=self._place)
