"""The ASGI face: the images of a library inside of another application, answered as by our own server."""

from __future__ import annotations

from dataclasses import replace

from starlette.types import Receive, Scope, Send

from lazypix.delivery import Delivery
from lazypix.faces import below, besides_images, is_for_image
from lazypix.http import Request
from lazypix.server.images import Images
from lazypix.server.send import request_of, send_answer

READERS = 16
DEADLINE_S = 60.0


class AsgiApp:
    """An ASGI application that serves the images of a library, and nothing else.

    It may be a server's application, or be mounted in another one: what stands in `root_path` is taken away. Its
    threads are started when they are needed; `close` ends them, and so does the end of the ASGI lifespan.
    """

    def __init__(self, delivery: Delivery, *, deadline_s: float = DEADLINE_S, readers: int = READERS) -> None:
        """`deadline_s` bounds the wait for one image; `readers` threads read store and catalog."""
        self._delivery = delivery
        self._deadline_s = deadline_s
        self._readers = readers
        self._opened: Images | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self.answer(scope, receive, send, mount=scope.get("root_path", ""))
        else:
            await send({"type": "websocket.close"})

    async def answer(self, scope: Scope, receive: Receive, send: Send, *, mount: str) -> None:
        """Answer a request for what stands below `mount`, a decoded path such as `/media`."""
        request = _below(request_of(scope), mount)
        if not is_for_image(request.method, request.path):
            await send_answer(besides_images(request.method, request.path), send)
            return
        answer = self._delivery.cached(request) or await self._images.answer(request, receive)
        if answer is not None:
            await send_answer(answer, send)

    def close(self) -> None:
        """End the threads, when what they do is done; the next request starts others."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    @property
    def _images(self) -> Images:
        if self._opened is None:  # only the event loop comes here
            self._opened = Images(self._delivery, self._deadline_s, self._readers)
        return self._opened

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                self.close()
                return


def _below(request: Request, mount: str) -> Request:
    # Some servers and frameworks leave the prefix in the path, as ASGI has it, and others have taken it away.
    path = below(request.path, mount.rstrip("/").encode().decode("latin-1"))
    return request if path is None else replace(request, path=path)
