"""The JSON API: uploads and the other routes of ImageServer, facts, deletion, health."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from starlette.requests import Request
from starlette.routing import Route

from lazypix.catalog import Image, Search
from lazypix.catalog.jobs import NewJob
from lazypix.composition import make_rules
from lazypix.dialects import split_name
from lazypix.dialects.imageserver import Size, parse_sizes
from lazypix.dialects.native import MOUNT
from lazypix.errors import BadRequest, BadUpload, Busy
from lazypix.formats import READABLE, by_name
from lazypix.http import Answer, envelope, json_answer
from lazypix.keys import check_ident
from lazypix.library import Library
from lazypix.orders import Wish, warm_jobs
from lazypix.originals.uploading import JobsOf
from lazypix.plan import check_size
from lazypix.resumable import read_metadata
from lazypix.server.access import WriteAccess
from lazypix.server.endpoints import Endpoint, Endpoints, Handler, finish_first
from lazypix.server.forms import IMAGE, Form, receive_form
from lazypix.server.metrics import metrics
from lazypix.server.wishes import echoed, read_wish
from lazypix.settings import Settings
from lazypix.upkeep.cleaning import purge

_MOST_LISTED = 1000
_READY_S = 5.0


class Api(Endpoints):
    """The routes besides the images themselves."""

    def __init__(
        self, settings: Settings, access: WriteAccess, library: Library, *, ready: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(settings, access, library)
        self._ready = ready
        self._rules = make_rules(settings)
        self._places = asyncio.Semaphore(settings.uploads)
        # Storing an upload waits for its decoding; it must not keep other requests from their threads.
        self._storing = ThreadPoolExecutor(settings.uploads, thread_name_prefix="lazypix-upload")
        self._checking = ThreadPoolExecutor(1, thread_name_prefix="lazypix-check")  # many ask for health, one looks

    def close(self) -> None:
        """Finish the uploads that are being stored."""
        self._storing.shutdown(wait=True)
        self._checking.shutdown(wait=True, cancel_futures=True)
        super().close()

    def routes(self) -> list[Route]:
        """Return the routes, for Starlette's router."""
        return [
            Route("/", self._answering(self.index), methods=["GET"]),
            Route("/upload", self._writing(self.upload), methods=["POST"]),
            Route("/image/{name}", self._writing(self.resize), methods=["POST"]),
            Route("/resize/{name}", self._writing(self.resize), methods=["POST"]),
            Route("/sync/{name}", self._writing(self.sync), methods=["POST"]),
            Route("/image/{name}", self._writing(self.delete, "delete"), methods=["DELETE"]),
            Route("/undelete/{ident}", self._writing(self.undelete, "delete"), methods=["POST"]),
            Route("/variants/{ident}", self._writing(self.purge, "delete"), methods=["DELETE"]),
            Route("/images", self._writing(self.images, "admin"), methods=["GET"]),
            Route("/info/{ident}", self._told(self.info), methods=["GET"]),
            Route("/metrics", self._writing(self.metrics, "admin"), methods=["GET"]),
            Route("/healthz", self._answering(self.healthz), methods=["GET"]),
            Route("/readyz", self._answering(self.readyz), methods=["GET"]),
        ]

    def _told(self, handle: Handler) -> Endpoint:
        """Make an endpoint for everybody who may have images; where these are given out one by one, for keys."""
        if self._settings.urls != "signed":
            return self._answering(handle)
        return self._identified(lambda request, _: handle(request))

    async def index(self, _: Request) -> Answer:
        """Tell a visitor what this is and where things are."""
        ways = {
            "upload": "POST /upload (form field: image, or url)",
            "upload in pieces": "POST /files/ (tus 1.0.0)",
            "upload without a key": "POST /tickets, POST /upload?ticket=, POST /finalise?ticket=",
            "key": "GET /keys/self",
            "image": "GET /image/<width>x<height>/<ident>.<ext> or /image/<ident>.<ext>?width=&height=",
            "remote": "GET /remote/<width>x<height>.<ext>?url=<URL>, of the hosts that remote_hosts names",
            "info": "GET /info/<ident>",
            "search": "GET /images?filename=&meta.<name>=&order=&limit=&before=",
            "delete": "DELETE /image/<ident>, POST /undelete/<ident>",
            "purge": "DELETE /variants/<ident>",
            "sync": "POST /sync/<ident> (replicas and a callback)",
            "health": "GET /healthz, /readyz, /metrics",
        }
        return json_answer(200, json.dumps({"lazypix": ways}, indent=2).encode())

    async def upload(self, request: Request) -> Answer:
        """`POST /upload`: store an original; its sizes are made ahead in the background."""
        async with self.place(), self._form(request, IMAGE, "url", "ident", "filename", "metadata") as form:
            sizes = self._sizes(form)
            wish = read_wish(form.fields, sizes, self._rules, caller=request.state.caller)
            image = await self._add(form, lambda image: self._jobs(image, sizes, wish), self._owner(request))
        location = (b"location", f"{MOUNT}{image.ident}.{by_name(image.format).extension}".encode())
        return envelope(201, _content(image.ident, sizes), location)

    async def resize(self, request: Request) -> Answer:
        """`POST /image/<ident>.jpg` and `POST /resize/<ident>.jpg`: make sizes ahead; replicas get them."""
        return await self._order(request, whole=False)

    async def sync(self, request: Request) -> Answer:
        """`POST /sync/<ident>.jpg`: replicas get everything that they receive of the image."""
        return await self._order(request, whole=True)

    async def _order(self, request: Request, *, whole: bool) -> Answer:
        image = await self._named(request)
        async with self._form(request) as form:
            sizes = self._sizes(form)
            wish = read_wish(form.fields, sizes, self._rules, caller=request.state.caller)
        await self._in_time(self._library.catalog.jobs.add, self._jobs(image, sizes, wish, whole=whole))
        return envelope(200, _content(image.ident, sizes))

    async def delete(self, request: Request) -> Answer:
        """`DELETE /image/<ident>`: remove the original and all variants; `?for_good=true`, even if they are kept."""
        ident, _ = split_name(request.path_params["name"])
        for_good = request.query_params.get("for_good", "false")
        if for_good not in ("true", "false"):
            raise BadRequest(f"for_good={for_good[:32]!r} is not accepted; accepted: true, false")
        await self._in_time(self._library.delete, ident, for_good=for_good == "true")
        return envelope(200, {"ident": ident})

    async def undelete(self, request: Request) -> Answer:
        """`POST /undelete/<ident>`: have a deleted image back, as long as it is kept."""
        ident, _ = split_name(request.path_params["ident"])
        image = await self._in_time(self._library.undelete, ident)
        return envelope(200, image.facts())

    async def purge(self, request: Request) -> Answer:
        """`DELETE /variants/<ident>`: drop the stored variants of an image; they are made again when asked for."""
        ident, _ = split_name(request.path_params["ident"])
        number, size = await self._in_time(purge, self._library, ident=ident)
        return envelope(200, {"ident": ident, "dropped": number, "bytes": size})

    async def images(self, request: Request) -> Answer:
        """`GET /images`: search images; needs a key where writes do, because it tells of all images."""
        options = list(request.query_params.multi_items())
        paging = {name: value for name, value in options if name in ("limit", "before")}
        limit = paging.get("limit", "100")
        if not limit.isdecimal() or len(limit) > 6 or not 1 <= int(limit) <= _MOST_LISTED:
            raise BadRequest(f"limit={limit[:16]!r} is not accepted; accepted: 1 to {_MOST_LISTED}")
        search = Search.of((name, value) for name, value in options if name not in ("limit", "before"))
        listed = partial(self._library.list, limit=int(limit), before=paging.get("before"), search=search)
        found = await self._in_time(listed)
        last = found[-1].ident if len(found) == int(limit) else None
        return envelope(200, {"images": [image.facts() for image in found], "before": last})

    async def info(self, request: Request) -> Answer:
        """`GET /info/<ident>`: what is known of an image, and which variants are stored.

        With `urls = "signed"` for who has a key: filename and metadata are told to nobody else, nor is the preview.
        """
        ident, _ = split_name(request.path_params["ident"])
        image = await self._in_time(self._library.get, ident)
        variants = await self._in_time(self._library.variants, ident)
        return envelope(200, image.facts() | {"variants": [variant.facts() for variant in variants]})

    async def metrics(self, _: Request) -> Answer:
        """`GET /metrics`: figures for Prometheus; needs a key where writes do."""
        return await self._in_time(metrics, self._library, pool=self._checking)

    async def healthz(self, _: Request) -> Answer:
        """`GET /healthz`: the process answers."""
        return json_answer(200, b'{"status": "ok"}')

    async def readyz(self, _: Request) -> Answer:
        """`GET /readyz`: catalog and store answer too; 503 when they do not, or the server is being stopped."""
        if not self._ready():
            raise Busy("The server is being stopped")
        await self._in_time(self._library.check, pool=self._checking, seconds=_READY_S)
        return json_answer(200, b'{"status": "ok"}')

    def _sizes(self, form: Form) -> list[Size]:
        """Read the sizes of a form; one over the limits is refused before anything is stored."""
        sizes = parse_sizes(form.fields.get("sizes", ""))
        for size in sizes:
            check_size(size.transform, self._library.limits)
        return sizes

    def _jobs(self, image: Image, sizes: list[Size], wish: Wish, *, whole: bool = False) -> list[NewJob]:
        """Return the jobs that a form asks for, in the turn of who sent it."""
        made = warm_jobs(image.ident, [size.transform for size in sizes], caller=wish.caller)
        return self._library.orders.wished(image.ident, wish, *made, whole=whole)

    async def _add(self, form: Form, jobs: JobsOf, owner: str | None) -> Image:
        image, url, ident = (
            form.image,
            form.fields.get("url", "").strip(),
            form.fields.get("ident", "").strip() or None,
        )
        if image is None and not url:
            accepted = f"a file, base64 or a data: URL ({', '.join(READABLE)}); or the field url"
            raise BadUpload(f"The form has no field 'image'; accepted: {accepted}")
        if image is not None and image.size and url:
            raise BadUpload("The form has the fields 'image' and 'url'; accepted: one of them")
        metadata, filename = read_metadata(form.fields.get("metadata", "")), form.fields.get("filename") or None
        # Shielded: when the client goes away now, the image is either stored whole or not at all.
        store = partial(
            self._library.add_incoming, ident=ident and check_ident(ident), metadata=metadata, jobs=jobs, owner=owner
        )
        if url:
            add = partial(self._library.sources.add, url, store, filename=filename)
        else:
            add = partial(store, image, filename=filename or form.filename)
        return await finish_first(asyncio.get_running_loop().run_in_executor(self._storing, add))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places for uploads."""
        try:
            await asyncio.wait_for(self._places.acquire(), self._settings.request_deadline_s)
        except TimeoutError:
            raise Busy(
                f"{self._settings.uploads} uploads are being received; try again later",
                retry_after_s=self._library.backlog.retry_after_s(),
            ) from None
        try:
            yield
        finally:
            self._places.release()

    async def _named(self, request: Request) -> Image:
        ident, _ = split_name(request.path_params["name"])
        return await self._in_time(self._library.get, ident)

    @asynccontextmanager
    async def _form(self, request: Request, *fields: str) -> AsyncIterator[Form]:
        """Receive the form of a request; `fields` are those that it may have besides those of every form."""
        headers = dict(request.scope["headers"])
        nothing_sent = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        if nothing_sent and IMAGE not in fields:
            yield Form()  # all is left to the defaults
            return
        async with receive_form(
            request.receive,
            headers,
            self._library.incoming.new,
            max_bytes=self._settings.max_bytes,
            buffer_bytes=self._settings.upload_buffer_bytes,
            idle_s=self._settings.upload_idle_s,
            deadline_s=self._settings.upload_deadline_s,
        ) as form:
            accepted = ("sizes", "sync", "callback", *fields)
            for name in form.fields:
                if name not in accepted:
                    raise BadUpload(f"Unknown field {name[:40]!r}; accepted: {', '.join(accepted)}")
            yield form


def _content(ident: str, sizes: list[Size]) -> dict[str, object]:
    return {"ident": ident, "sizes": echoed(sizes)}
