"""Answers in the types of web frameworks: the only code here that knows any. Each is imported when it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from lazypix.errors import SettingsError
from lazypix.http import Answer


class WebEngine(Protocol):
    """Gives answers as responses of one web framework."""

    def permanent_redirect(self, answer: Answer) -> object:
        """Return a 301 to the answer's `Location`."""
        ...

    def response(self, answer: Answer) -> object:
        """Return an image, or the JSON text of an error. The body is bytes."""
        ...


def web_engine(name: str) -> WebEngine:
    """Return the engine of a framework.

    Raises:
        SettingsError: there is none of this name, or the framework is not installed.
    """
    make = _ENGINES.get(name)
    if make is None:
        raise SettingsError(f"webengine={name[:40]!r} is not accepted; accepted: {', '.join(_ENGINES)}")
    return make()


class WheezyEngine:
    """`wheezy.http.HTTPResponse`; its redirect is that of `wheezy.http.permanent_redirect`."""

    def __init__(self) -> None:
        with _needed("wheezy"):
            import wheezy.http

            self._http: Any = wheezy.http

    def permanent_redirect(self, answer: Answer) -> object:
        return self._completed(self._http.permanent_redirect(_header(answer, "location")), answer)

    def response(self, answer: Answer) -> object:
        response = self._http.HTTPResponse(content_type=_header(answer, "content-type"))
        response.status_code = _known_status(answer.status, self._http.response.HTTP_STATUS)
        response.write_bytes(_body(answer))
        return self._completed(response, answer)

    def _completed(self, response: Any, answer: Answer) -> object:
        """Add headers; what is kept for how long is a policy in wheezy."""
        own = ("location", "content-type", "content-length", "cache-control")
        response.headers += [(name, value) for name, value in _headers(answer) if name.lower() not in own]
        control = _header(answer, "cache-control")
        policy = self._http.HTTPCachePolicy("no-cache" if control == "no-store" else "public")
        if control == "no-store":
            policy.no_store()
        else:
            policy.max_age(int(control.rpartition("max-age=")[2]))
        response.cache_policy = policy
        return response


class DjangoEngine:
    """`django.http.HttpResponse` and `HttpResponsePermanentRedirect`."""

    def __init__(self) -> None:
        with _needed("django"):
            import django.http

            self._http: Any = django.http

    def permanent_redirect(self, answer: Answer) -> object:
        response = self._http.HttpResponsePermanentRedirect(_header(answer, "location"))
        return _with_headers(response, answer)

    def response(self, answer: Answer) -> object:
        return _with_headers(self._http.HttpResponse(_body(answer), status=answer.status), answer)


class FlaskEngine:
    """`flask.Response`; its redirect is that of `flask.redirect`."""

    def __init__(self) -> None:
        with _needed("flask"):
            import flask

            self._flask: Any = flask

    def permanent_redirect(self, answer: Answer) -> object:
        response = self._flask.redirect(_header(answer, "location"), 301, self._flask.Response)
        return _with_headers(response, answer)

    def response(self, answer: Answer) -> object:
        return _with_headers(self._flask.Response(_body(answer), status=answer.status), answer)


class StarletteEngine:
    """`starlette.responses.Response` and `RedirectResponse`, which are FastAPI's too."""

    def __init__(self) -> None:
        with _needed("fastapi"):
            import starlette.responses

            self._responses: Any = starlette.responses

    def permanent_redirect(self, answer: Answer) -> object:
        response = self._responses.RedirectResponse(_header(answer, "location"), status_code=301)
        return _with_headers(response, answer)

    def response(self, answer: Answer) -> object:
        return _with_headers(self._responses.Response(_body(answer), status_code=answer.status), answer)


_ENGINES: dict[str, Callable[[], WebEngine]] = {
    "wheezy": WheezyEngine,
    "django": DjangoEngine,
    "flask": FlaskEngine,
    "fastapi": StarletteEngine,
    "starlette": StarletteEngine,
}


@contextmanager
def _needed(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise SettingsError(f"webengine={name!r} needs a package: pip install 'lazypix[{name}]'") from None


def _headers(answer: Answer) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").title(), value.decode("latin-1")) for name, value in answer.headers]


def _header(answer: Answer, name: str) -> str:
    return next(value for given, value in _headers(answer) if given.lower() == name)


def _with_headers(response: Any, answer: Answer) -> object:
    for name, value in _headers(answer):
        if name.lower() not in ("location", "content-length"):
            response.headers[name] = value
    return response


def _body(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def _known_status(status: int, known: dict[int, str]) -> int:
    """Return a status that a framework has a text for: the nearest of its hundred."""
    return status if status in known else {4: 400, 5: 503}[status // 100]
