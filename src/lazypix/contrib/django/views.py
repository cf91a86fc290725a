"""Images as answers of Django: what `Delivery` says, with its own headers and no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from lazypix.contrib.django import configured
from lazypix.faces import besides_images, is_for_image
from lazypix.http import Answer, Request
from lazypix.wsgi import answer_image, opened, request_of, text_headers

_ASSETS = {"image_input.js": "text/javascript", "image_input.css": "text/css"}


class _AsItIs:
    """A response that middleware leaves alone: an image is not compressed again, and a 304 has no length.

    Both are told by headers that seem to be there. (GZipMiddleware would compress parts of an image, too.)
    """

    def has_header(self, header: str) -> bool:
        """Tell middleware that there is nothing to be done."""
        return header.lower() in ("content-encoding", "content-length") or super().has_header(header)  # type: ignore[misc]


class _Whole(_AsItIs, HttpResponse):
    """An answer whose body is in memory."""


class _Pieces(_AsItIs, StreamingHttpResponse):
    """An answer whose body comes in pieces."""


class _Later:
    """Pieces for an asynchronous server, each read in a thread."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._left: Iterator[bytes] = iter(pieces)

    def __aiter__(self) -> _Later:
        return self

    def __anext__(self) -> Any:
        return sync_to_async(self._next)()

    def _next(self) -> bytes:
        try:
            return next(self._left)
        except StopIteration:
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Let the file or the store go."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


@csrf_exempt
def image(request: HttpRequest, path: str) -> HttpResponseBase:
    """Answer a request for an image, of any method; `path` is what follows the place where our URLs are included."""
    asked = request_of(_environ(request), request.path_info.removesuffix(path).rstrip("/"))
    if not is_for_image(asked.method, asked.path):
        return respond(request, besides_images(asked.method, asked.path))
    return respond(request, _answered(asked))


def _answered(asked: Request) -> Answer:
    return answer_image(configured.library().delivery, asked)


def respond(request: HttpRequest, answer: Answer) -> HttpResponseBase:
    """Return an answer as Django's response."""
    answer, body = opened(answer, head=request.method == "HEAD")
    response: HttpResponseBase
    if isinstance(body, tuple):
        response = _Whole(b"".join(body), status=answer.status)
    else:
        response = _Pieces(_Later(body) if isinstance(request, ASGIRequest) else body, status=answer.status)
    del response.headers["Content-Type"]
    for name, value in text_headers(answer):
        response.headers[name.title()] = value
    return response


def _environ(request: HttpRequest) -> dict[str, Any]:
    """Return what `request_of` reads: WSGI's environ, or its like of an ASGI request."""
    if not isinstance(request, ASGIRequest):
        return dict(request.META)
    raw = request.scope.get("raw_path")
    given = {"REQUEST_URI": raw.decode("latin-1")} if raw else {}
    return {**request.META, "PATH_INFO": request.path_info.encode().decode("latin-1"), **given}


@require_safe
def asset(_: HttpRequest, name: str) -> HttpResponseBase:
    """Answer with the script or style of our widget."""
    if name not in _ASSETS:
        raise Http404(f"There is no {name}; there are {', '.join(_ASSETS)}")
    file = (Path(__file__).parent / "assets" / name).open("rb")
    response = FileResponse(file, content_type=_ASSETS[name])
    response.headers["Cache-Control"] = "public, max-age=3600"
    return response
