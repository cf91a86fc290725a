"""Upload tickets over HTTP: signed for who has a key, used by who has none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import Scope

from lazypix.catalog import Image
from lazypix.dialects.imageserver import parse_sizes
from lazypix.dialects.native import MOUNT
from lazypix.errors import BadRequest, BadUpload, NotFound
from lazypix.formats import READABLE, by_name
from lazypix.http import Answer, envelope
from lazypix.incoming import Incoming
from lazypix.library import Library
from lazypix.resumable import read_metadata
from lazypix.server.access import WriteAccess
from lazypix.server.endpoints import Place, StoringEndpoints, finish_first
from lazypix.server.forms import IMAGE, Form, receive_form
from lazypix.server.wishes import echoed
from lazypix.settings import Settings
from lazypix.signing.tickets import Ticket
from lazypix.ticketing import Terms

HEADER, PARAMETER = b"lazypix-ticket", "ticket"
"""Where a request has its ticket: a header, or a parameter of the query."""

_FIELDS = ("ident", "expires_s", "max_bytes", "max_pixels", "formats", "sizes", "metadata", "direct")
_FIELDS_BYTES = 1024 * 1024
_MOST_DIGITS = 15


class TicketEndpoints(StoringEndpoints):
    """`POST /tickets`, `POST /upload?ticket=…`, `POST /finalise?ticket=…`."""

    def __init__(self, settings: Settings, access: WriteAccess, library: Library, place: Place) -> None:
        super().__init__(settings, access, library, place)
        self._tickets = library.tickets

    def routes(self) -> list[Route]:
        """Return the routes, for Starlette's router: before that of uploads with a key."""
        return [
            Route("/tickets", self._writing(self.sign), methods=["POST"]),
            _WithTicket("/upload", self._answering(self.upload), methods=["POST"]),
            Route("/finalise", self._answering(self.finalise), methods=["POST"]),
        ]

    async def sign(self, request: Request) -> Answer:
        """`POST /tickets`: sign a ticket; with `direct=true` one with which the store itself takes the image."""
        if not self._tickets.can_sign:
            raise NotFound("This server signs no tickets: there are no ticket_keys in its settings")
        fields = await self._fields(request)
        terms = _terms(fields, owner=self._owner(request))
        direct = fields.get("direct", "false").strip()
        if direct not in ("true", "false"):
            raise BadRequest(f"direct={direct[:40]!r} is not accepted; accepted: true, false")
        text = await self._in_time(self._tickets.sign, terms)
        content = self._told(text, self._tickets.open(text))
        if direct == "true":
            address = await self._in_time(self._tickets.upload_address, text)
            finalise = {"method": "POST", "url": self._url("finalise", text)}
            put = {"method": "PUT", "url": address.url, "headers": dict(address.headers)}
            content |= {"put": put, "finalise": finalise}
        return envelope(201, content)

    async def upload(self, request: Request) -> Answer:
        """`POST /upload?ticket=…`: store the image of a form as the ticket says; no key is needed."""
        ticket = self._tickets.open(ticket_of(request.scope) or "")
        # Looked up before anything is received: one that was used shall cost nothing.
        await self._in_time(self._tickets.check_unused, ticket.ident)
        receive, most = partial(self._tickets.receive, ticket), self._tickets.max_bytes(ticket)
        async with self._place(), self._received(request, receive, most) as form:
            if form.fields:
                unknown = next(iter(form.fields))[:40]
                raise BadUpload(f"Unknown field {unknown!r}; accepted: image; all else says the ticket")
            if form.image is None:
                raise BadUpload(f"The form has no field 'image'; accepted: a file ({', '.join(READABLE)})")
            add = partial(self._tickets.add, ticket, form.image, filename=form.filename)
            image = await finish_first(asyncio.get_running_loop().run_in_executor(self._storing, add))
        return _stored(201, image, ticket)

    async def finalise(self, request: Request) -> Answer:
        """`POST /finalise?ticket=…`: make an image of what the store was given; twice gives the same image."""
        text = ticket_of(request.scope)
        if text is None:
            raise BadRequest("There is no ticket; accepted: ?ticket=…, or the header Lazypix-Ticket")
        ticket = self._tickets.open(text)
        async with self._place():
            work = partial(self._tickets.finalise, text)
            image = await finish_first(asyncio.get_running_loop().run_in_executor(self._storing, work))
        return _stored(200, image, ticket)

    def _told(self, text: str, ticket: Ticket) -> dict[str, Any]:
        return {
            "ticket": text,
            "ident": ticket.ident,
            "expires": datetime.fromtimestamp(ticket.expires_at, UTC).isoformat(),
            "upload": {"method": "POST", "url": self._url("upload", text), "field": IMAGE},
        }

    def _url(self, verb: str, text: str) -> str:
        return f"{self._settings.base_url.rstrip('/')}/{verb}?{PARAMETER}={text}"

    async def _fields(self, request: Request) -> dict[str, str]:
        headers = request.headers
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            return {}
        async with self._received(request, self._library.incoming.new, _FIELDS_BYTES) as form:
            unknown = [*([IMAGE] if form.image else []), *(name for name in form.fields if name not in _FIELDS)]
            if unknown:
                raise BadRequest(f"Unknown field {unknown[0][:40]!r}; accepted: {', '.join(_FIELDS)}")
            return form.fields

    def _received(
        self, request: Request, new_incoming: Callable[[], Incoming], max_bytes: int
    ) -> AbstractAsyncContextManager[Form]:
        return receive_form(
            request.receive,
            dict(request.scope["headers"]),
            new_incoming,
            max_bytes=max_bytes,
            buffer_bytes=self._settings.upload_buffer_bytes,
            idle_s=self._settings.upload_idle_s,
            deadline_s=self._settings.upload_deadline_s,
        )


class _WithTicket(Route):
    """A route for requests that have a ticket."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and ticket_of(scope) is None:
            return Match.NONE, {}
        return super().matches(scope)


def ticket_of(scope: Scope) -> str | None:
    """Return the ticket of a request, from its header or its query."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == HEADER]
    if not given:
        given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get(PARAMETER, [])
    return given[0] if given else None


def _terms(fields: Mapping[str, str], *, owner: str | None) -> Terms:
    given = {name: text.strip() for name, text in fields.items() if text.strip()}
    numbers = {name: _number(name, given[name]) for name in ("expires_s", "max_bytes", "max_pixels") if name in given}
    formats = [name for name in given.get("formats", "").split(",") if name.strip()]
    return Terms(
        ident=given.get("ident"), formats=formats, sizes=given.get("sizes", ""),
        metadata=read_metadata(given.get("metadata", "")), owner=owner, **numbers,
    )  # fmt: skip


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise BadRequest(f"{name}={text[:40]!r} is not accepted; accepted: a number")
    return int(text)


def _stored(status: int, image: Image, ticket: Ticket) -> Answer:
    location = (b"location", f"{MOUNT}{image.ident}.{by_name(image.format).extension}".encode())
    return envelope(status, {"ident": image.ident, "sizes": echoed(parse_sizes(ticket.sizes))}, location)
