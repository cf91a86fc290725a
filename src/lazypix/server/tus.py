"""Uploads in pieces by the tus protocol 1.0.0: `/files/`.

Source: https://tus.io/protocols/resumable-upload, version 1.0.0 of 2016-03-25; with its extensions creation,
creation-with-upload, expiration, termination and checksum.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive

from lazypix.composition import make_rules
from lazypix.errors import (
    BadRequest,
    ChecksumMismatch,
    LazypixError,
    MethodNotAllowed,
    TooLarge,
    TooSlow,
    UnknownUpload,
    VersionRefused,
    WrongMediaType,
)
from lazypix.http import SAFE, Answer, Headers, error_answer, http_date
from lazypix.incoming import Incoming
from lazypix.library import Library
from lazypix.originals.uploading import JobsOf
from lazypix.resumable import Upload
from lazypix.server.access import WriteAccess, preflight
from lazypix.server.endpoints import Endpoint, Handler, Place, StoringEndpoints, finish_first
from lazypix.server.forms import ClientGone
from lazypix.server.send import AnswerResponse
from lazypix.server.wishes import jobs_for
from lazypix.settings import Settings

log = logging.getLogger("lazypix.server")

PLACE = "/files/"
VERSION = b"1.0.0"
EXTENSIONS = b"creation,creation-with-upload,expiration,termination,checksum"
PIECE_TYPE = "application/offset+octet-stream"
FIELDS = ("filename", "ident", "metadata", "sizes", "sync", "callback")
_UNUSED = ("name", "type", "filetype", "relativePath")
"""What the clients for browsers (Uppy, tus-js-client) say of a file by themselves."""
_ALGORITHMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
_SENT = b"tus-resumable, upload-length, upload-offset, upload-metadata, upload-checksum, x-http-method-override"
_EXPOSED = (
    b"location, upload-offset, upload-length, upload-metadata, upload-expires, tus-version, tus-resumable, "
    b"tus-max-size, tus-extension, tus-checksum-algorithm, lazypix-ident, lazypix-error, retry-after"
)
_NO_STORE = (b"cache-control", b"no-store")
_MOST_DIGITS = 18


class Tus(StoringEndpoints):
    """The routes of uploads in pieces."""

    def __init__(self, settings: Settings, access: WriteAccess, library: Library, place: Place) -> None:
        super().__init__(settings, access, library, place)
        self._rules = make_rules(settings)
        self._resumable = library.resumable

    def routes(self) -> list[Route]:
        """Return the routes, for Starlette's router."""
        one = ["HEAD", "PATCH", "DELETE", "POST"]
        return [
            Route(PLACE, self._speaking(self.begin), methods=["POST"]),
            Route(PLACE + "{upload}", self._speaking(self.one), methods=one),
        ]

    def options(self) -> Answer:
        """Return what the server can do, and what browsers are told before they let pages of other sites ask."""
        told = dict(preflight().headers)
        told[b"access-control-allow-methods"] = b"POST, HEAD, PATCH, DELETE, OPTIONS"
        told[b"access-control-allow-headers"] += b", " + _SENT
        able = (
            (b"tus-version", VERSION),
            (b"tus-extension", EXTENSIONS),
            (b"tus-max-size", b"%d" % self._settings.max_bytes),
            (b"tus-checksum-algorithm", ",".join(_ALGORITHMS).encode()),
        )
        return _spoken(Answer(status=204, headers=(*told.items(), *able)))

    async def begin(self, request: Request) -> Answer:
        """`POST /files/`: begin an upload; its first piece may come along."""
        length, fields = _length(request), read_fields(request.headers.get("upload-metadata", ""))
        jobs = jobs_for(self._library, fields, self._rules, caller=request.state.caller)
        kind, sent = request.headers.get("content-type"), request.headers.get("content-length", "0")
        with_piece = kind == PIECE_TYPE and (sent != "0" or "transfer-encoding" in request.headers)
        owner = self._owner(request)
        upload = await self._in_time(self._resumable.begin, length, fields=fields, owner=owner)
        if with_piece:
            try:
                upload = await self._take(request, upload, jobs)
            except BaseException:  # its client was not told where it is
                await asyncio.to_thread(self._resumable.end, upload.id)
                raise
        location = (b"location", f"{PLACE}{upload.id}".encode())
        return Answer(status=201, headers=(location, *_progress(upload), (b"content-length", b"0")))

    async def one(self, request: Request) -> Answer:
        """Do with one upload what the method says, or the header that stands for it where a proxy knows no PATCH."""
        method = request.headers.get("x-http-method-override", request.method).upper()
        ways: dict[str, Handler] = {"HEAD": self.tell, "PATCH": self.go_on, "DELETE": self.give_up}
        if method not in ways:
            raise MethodNotAllowed(f"{method[:20]} is not possible here; accepted: {', '.join(ways)}")
        return await ways[method](request)

    async def tell(self, request: Request) -> Answer:
        """`HEAD /files/<id>`: tell how far an upload is, and which image it became."""
        upload = await self._named(request)
        described = ((b"upload-metadata", _written(upload.fields)),) if upload.fields else ()
        length = (b"upload-length", b"%d" % upload.length)
        return Answer(status=200, headers=(length, *_progress(upload), *described))

    async def go_on(self, request: Request) -> Answer:
        """`PATCH /files/<id>`: take the next piece."""
        kind = request.headers.get("content-type", "")
        if kind != PIECE_TYPE:
            raise WrongMediaType(f"Content-Type {kind[:64]!r} is not accepted; accepted: {PIECE_TYPE}")
        position = _number(request, "upload-offset")
        upload = await self._named(request)
        self._resumable.expect(upload, position)
        jobs = jobs_for(self._library, upload.fields, self._rules, caller=request.state.caller)
        return Answer(status=204, headers=_progress(await self._take(request, upload, jobs)))

    async def give_up(self, request: Request) -> Answer:
        """`DELETE /files/<id>`: throw an upload away; an image that it became stays."""
        upload = await self._named(request)
        await self._in_time(self._resumable.end, upload.id)
        return Answer(status=204, headers=())

    async def _named(self, request: Request) -> Upload:
        """Return the upload of a request, if it is that of the same key."""
        upload = await self._in_time(self._resumable.get, request.path_params["upload"])
        if upload.owner != self._owner(request):
            raise UnknownUpload(f"There is no upload {upload.id}")
        return upload

    async def _take(self, request: Request, upload: Upload, jobs: JobsOf) -> Upload:
        """Receive a piece, and append what came of it, also when that is not all."""
        _check_length(request, upload)
        checksum = _Checksum.of(request.headers.get("upload-checksum"))
        async with self._place():
            piece = await asyncio.to_thread(self._resumable.receive, upload)
            try:
                broken = await self._pump(request.receive, piece, checksum)
                if checksum is not None:
                    checksum.check(broken)
                append = partial(self._resumable.append, upload, piece, jobs=jobs)
                # Shielded: when the client goes away now, the piece is taken all the same.
                work = asyncio.get_running_loop().run_in_executor(self._storing, append)
                now = await finish_first(work)
            finally:
                await asyncio.to_thread(piece.discard)
        if broken is not None:
            raise broken
        return now

    async def _pump(
        self, receive: Receive, piece: Incoming, checksum: _Checksum | None
    ) -> TooSlow | ClientGone | None:
        """Write what comes into the file; return why it ended early, if so."""
        waiting = bytearray()

        def write() -> None:
            piece.write(waiting)
            if checksum is not None:
                checksum.update(waiting)
            waiting.clear()

        broken, settings = None, self._settings
        try:
            async for body in _bodies(receive, settings.upload_idle_s, settings.upload_deadline_s):
                waiting += body
                if len(waiting) >= settings.upload_buffer_bytes:
                    await asyncio.to_thread(write)
        except (TooSlow, ClientGone) as error:
            broken = error
        await asyncio.to_thread(write)
        return broken

    def _speaking(self, handle: Handler) -> Endpoint:
        """Make an endpoint that speaks this protocol, in its errors too."""
        endpoint = self._writing(handle)

        async def speaking(request: Request) -> AnswerResponse:
            try:
                if request.headers.get("tus-resumable", "").encode() != VERSION:
                    raise VersionRefused(
                        f"The header Tus-Resumable is missing or wrong; accepted: {VERSION.decode()}"
                    )
                answer = (await endpoint(request)).answer
            except LazypixError as error:
                if error.status >= 500:
                    log.warning("%s was answered with %d: %s", request.url.path, error.status, error)
                answer = error_answer(error)
                if isinstance(error, VersionRefused):
                    answer = replace(answer, headers=(*answer.headers, (b"tus-version", VERSION)))
            return AnswerResponse(_spoken(answer))

        return speaking


class _Checksum:
    """What a client says the hash of a piece is. Not for several threads at once."""

    def __init__(self, algorithm: str, digest: bytes) -> None:
        self._hash = _ALGORITHMS[algorithm](usedforsecurity=False)
        self._digest = digest

    @classmethod
    def of(cls, header: str | None) -> _Checksum | None:
        if header is None:
            return None
        algorithm, _, text = header.strip().partition(" ")
        try:
            digest = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            digest = b""
        if algorithm not in _ALGORITHMS or len(digest) != _ALGORITHMS[algorithm]().digest_size:
            accepted = " or ".join(f"{name} <base64>" for name in _ALGORITHMS)
            raise BadRequest(f"Upload-Checksum {header[:64]!r} is not accepted; accepted: {accepted}")
        return cls(algorithm, digest)

    def update(self, data: bytes | bytearray) -> None:
        self._hash.update(data)

    def check(self, broken: TooSlow | ClientGone | None) -> None:
        """Refuse a piece that is not the one that was hashed; of one that broke off that cannot be known."""
        if broken is not None:
            raise broken
        if not hmac.compare_digest(self._hash.digest(), self._digest):
            raise ChecksumMismatch("The piece is not what Upload-Checksum says; send it again")


async def _bodies(receive: Receive, idle_s: float, deadline_s: float) -> AsyncIterator[bytes]:
    """Yield the pieces of a body as they come.

    Raises:
        TooSlow: nothing came for `idle_s` seconds, or not all within `deadline_s`.
        ClientGone: the client went away before the end.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + deadline_s
    while True:
        try:
            message = await asyncio.wait_for(receive(), min(idle_s, end - clock()))
        except TimeoutError:
            raise TooSlow(
                f"Nothing was received for {idle_s:g} seconds, or not all within {deadline_s:g}; go on with the rest"
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _spoken(answer: Answer) -> Answer:
    """Add what each answer of this protocol has, and no cache keeps."""
    mine = {b"tus-resumable", b"access-control-expose-headers", b"cache-control"}
    safe = [header for header in SAFE if header[0] not in dict(answer.headers)]
    kept = [header for header in answer.headers if header[0] not in mine]
    added: Headers = ((b"tus-resumable", VERSION), (b"access-control-expose-headers", _EXPOSED), _NO_STORE)
    return replace(answer, headers=(*kept, *safe, *added))


def _progress(upload: Upload) -> Headers:
    offset, until = (b"upload-offset", b"%d" % upload.position), (b"upload-expires", http_date(upload.until))
    became = ((b"lazypix-ident", upload.ident.encode()),) if upload.ident is not None else ()
    return (offset, until, *became)


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not text.isascii() or not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise BadRequest(f"{name.title()} {text[:32]!r} is not accepted; accepted: a number of bytes")
    return int(text)


def _length(request: Request) -> int:
    if "upload-defer-length" in request.headers:
        raise BadRequest(
            "Upload-Defer-Length is not accepted: how long the image is must be known; send Upload-Length"
        )
    if "upload-concat" in request.headers:
        raise BadRequest("Upload-Concat is not accepted; send an image as one upload, its pieces one after the other")
    return _number(request, "upload-length")


def _check_length(request: Request, upload: Upload) -> None:
    """Refuse a piece that is longer than what is missing, before it is received."""
    sent, missing = request.headers.get("content-length", "0"), upload.length - upload.position
    if sent.isdecimal() and int(sent[:_MOST_DIGITS]) > missing:
        raise TooLarge(f"The piece has {sent[:_MOST_DIGITS]} bytes; {missing} are missing")


# --- Upload-Metadata --------------------------------------------------------------------------------------------


def read_fields(header: str) -> dict[str, str]:
    """Read the header `Upload-Metadata`: names with values in base64, separated by commas.

    Raises:
        BadRequest: it is malformed, names something twice, or something that is not known here.
    """
    fields: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else ():
        name, _, text = pair.strip().partition(" ")
        if name not in (*FIELDS, *_UNUSED):
            raise BadRequest(f"Upload-Metadata: unknown name {name[:40]!r}; accepted: {', '.join(FIELDS)}")
        if name in fields:
            raise BadRequest(f"Upload-Metadata: {name} is given twice")
        fields[name] = _value(name, text)
    if "name" in fields:
        fields.setdefault("filename", fields["name"])
    return fields


def _value(name: str, text: str) -> str:
    try:
        value = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        value = "\0"
    if "\0" in value:
        raise BadRequest(f"Upload-Metadata: {name}={text[:40]!r} is not accepted; accepted: UTF-8 text in base64")
    return value


def _written(fields: Mapping[str, str]) -> bytes:
    return b",".join(name.encode() + b" " + base64.b64encode(value.encode()) for name, value in fields.items())
