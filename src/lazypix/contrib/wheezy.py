"""wheezy.web: a handler that serves a library's images, and its place among the URLs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

try:
    from wheezy.http import HTTPResponse
    from wheezy.routing import url
except ImportError as error:
    raise ImportError('wheezy.web is not installed: pip install "lazypix[wheezy]"') from error

from lazypix.catalog import Image
from lazypix.contrib.opening import OneAProcess, open_configured
from lazypix.dialects.native import MOUNT
from lazypix.dialects.remote import SERVED
from lazypix.errors import LazypixError
from lazypix.http import Answer, error_answer
from lazypix.library import Library
from lazypix.markup import Tags
from lazypix.wsgi import WsgiApp, start


class Images:
    """A library in an application: `urls = [*images.urls(), …]`.

    It is opened by `open`, when first needed; by default as the settings say. `prefix` is the path that the URLs are
    included below, which `base_url` has to name too. With `remote` the URLs are those of other servers' images too,
    `/remote/…`, which the setting `remote_hosts` allows; else that is the application's.
    """

    def __init__(
        self, open: Callable[[], Library] = open_configured, *, prefix: str = "", remote: bool = False
    ) -> None:
        self.library = OneAProcess(open)
        """Returns the library of this process."""
        self._prefix = prefix
        self.places = SERVED if remote else (MOUNT,)
        """The paths below which images are served."""

    def urls(self) -> list[Any]:
        """Return the mapping of the images' URLs, `image` and `remote`, for `bootstrap_defaults` or `PathRouter`."""
        places = [place.strip("/") for place in self.places]
        return [url(f"{place}/(?P<path>.*)", self.handle, name=place) for place in places]

    def handle(self, request: Any) -> AnswerResponse:
        """Answer a request; a handler of wheezy.web."""
        app = WsgiApp(self.library().delivery, mount=self._prefix)
        return AnswerResponse(app.answer(request.environ), request.environ)

    def refused(self, request: Any, error: LazypixError) -> AnswerResponse:
        """Answer an error of lazypix, with its status and reason."""
        return AnswerResponse(error_answer(error), request.environ)

    def tags(self) -> Tags:
        """Return what writes HTML for the images."""
        return Tags(addresses=self.library().addresses)

    def add(self, upload: Any, **options: Any) -> Image:
        """Store a file of `request.files`; `options` and errors are those of `Library.add`."""
        return self.library().add(upload.file, **{"filename": upload.filename or None, **options})


class AnswerResponse(HTTPResponse):
    """Sends an `Answer` as it is.

    To middleware it is a 200 always: wheezy's own would send a client that asks for an image to a page that tells of
    the error.
    """

    def __init__(self, answer: Answer, environ: dict[str, Any]) -> None:
        super().__init__()
        self.answer = answer
        self._environ = environ

    def __call__(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Send it."""
        return start(self.answer, self._environ, start_response)
