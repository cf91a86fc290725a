"""`S3ImageStorage` and `S3FileStorage`, and the task that stores a size.

`s3_store_image` may be replaced by a Celery task of itself::

    storage.s3_store_image = app.task(storage.s3_store_image)
"""

from __future__ import annotations

import logging
import secrets
import string
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from imagestorage import fleet as fleets
from imagestorage import opened as libraries
from imagestorage.engines import WebEngine, web_engine
from imagestorage.fleet import Fleet, fleet_of
from imagestorage.opened import Opened, configured, opened_at
from imagestorage.origins import add_origin
from imagestorage.places import Place
from imagestorage.sizes import Size, read_size, requested_size
from lazypix import Image, Library, Transform, Variant
from lazypix.errors import BadRequest, BadTransform, LazypixError, SettingsError, StoreFailed, UnknownImage
from lazypix.filenames import base_name
from lazypix.formats import WRITABLE, by_extension
from lazypix.http import SAFE, Answer, error_answer
from lazypix.keys import check_ident
from lazypix.plan import check_size
from lazypix.stores import check_key

__all__ = ["S3FileStorage", "S3ImageStorage", "close", "configure", "s3_store_image"]

log = logging.getLogger("imagestorage")

_RANDOM = string.ascii_uppercase + string.digits


def s3_store_image(image_id: str, ext: str, size: str, place: Mapping[str, str]) -> str:
    """Make one size of an image and store it, if it is not there; return its public URL. `Library.variant`.

    All arguments are JSON-able, and none is secret. Where the bucket is, its keys and the catalog a worker knows from
    `configure`, called in its process for the same place, or else from `LAZYPIX_*` variables.

    Raises:
        SettingsError: `place` is none, or one that this process does not know.
        UnknownImage: the worker's catalog has no such image.
        StoreFailed: it was made, and could not be stored.
        LazypixError: as `Library.variant`.
    """
    opened = opened_at(Place.from_json(place))
    library = opened.library()
    transform = read_size(size).with_format(_format(ext))
    try:
        image = library.get(image_id)
    except UnknownImage as error:
        hint = "; a worker needs the application's catalog (LAZYPIX_CATALOG, or LAZYPIX_DATA on the same machine)"
        raise UnknownImage(f"{error}{hint}") from None
    library.variant(image.ident, transform)
    key = library.stored_key(image, transform)
    if key is None:
        raise StoreFailed(f"{size} of {image_id} was made and could not be stored; the log says why")
    return opened.place.url(key)


_STORE_HERE = s3_store_image  # while nobody has replaced it, no task is needed


class _Configured:
    """What is kept at a place, which `configure` tells."""

    _place: Opened | None = None

    def configure(
        self,
        credentials: Mapping[str, str],
        bucket: str,
        base_url: str,
        base_path: str = "/",
        **settings: Hashable,
    ) -> None:
        """Say where the images are. The library is opened when it is first needed, once in each process.

        `credentials` are `access_key` and `secret_key`; `endpoint` and `region` too, where `base_url` is not the S3
        server's own address of the bucket. `base_url` is where the world reads the bucket, `base_path` a folder in
        it. Everything else, such as `data` and `catalog`, is set as everywhere in lazypix: by `LAZYPIX_*` variables,
        a TOML file, or here by keyword.

        Raises:
            SettingsError: names every fault.
        """
        self._place = configured(credentials, bucket, base_url, base_path, settings)

    def _opened(self) -> Opened:
        if self._place is None:
            raise SettingsError("It is not known where the images are: call configure(…) first")
        return self._place


class S3ImageStorage(_Configured):
    """One image, kept in S3 with all its sizes, of one format. Cheap to make: for each request, for instance.

    Nothing about the image is looked at before it is needed: `store_origin` raises `BadIdent` for an `image_id` that
    cannot be an ident, and `get_requested_image` answers with that.
    """

    def __init__(self, image_id: str | int, ext: str) -> None:
        """`image_id` is the application's own name of the image; `ext` the extension of a format, such as `jpg`.

        Raises:
            BadTransform: no images of this format are made here.
        """
        self.image_id = str(image_id)
        self._ext = ext
        self._format = _format(ext)
        self._engine: WebEngine | None = None
        self._hosts: tuple[str, ...] = ()

    def configure_webengine(self, name: str) -> None:
        """Choose whose responses are given: `wheezy`, `django`, `flask`, `fastapi` or `starlette`.

        Raises:
            SettingsError: it is none of these, or not installed.
        """
        self._engine = web_engine(name)

    def configure_memcache(self, hosts: Sequence[str]) -> None:
        """Name the memcached servers, `host:port`, by which all processes know what is stored, and who stores it.

        The same ones for all. When they are away, or none are named, each process knows for itself.

        Raises:
            SettingsError: one is malformed, or a package is missing.
        """
        self._hosts = tuple(hosts)
        fleet_of(self._hosts)  # to tell what is wrong

    def store_origin(self, image_url: str, origin_size: Size) -> str:
        """Download an image, bring it inside a size, and store it as the original; return its public URL.

        It is never enlarged; one that is of the right format, and within the size, is stored as it came. It is
        durable when this returns. Once more with the same URL nothing is done.

        Raises:
            BadTransform: `origin_size` is none.
            BadIdent, IdentTaken: the `image_id` cannot be an ident, or is another image's.
            AddressRefused: the URL leads to a private address.
            LazypixError: as `Library.add_url`; every one has a `status` and a public text.
        """
        opened = self._opened()
        library = opened.library()
        bounds = read_size(origin_size).as_format(self._format)
        image = add_origin(library, image_url, check_ident(self.image_id), bounds)
        return opened.place.url(library.originals.key(image))

    def get_requested_image(self, image_url_or_tuple: Size) -> object:
        """Answer a request for a size: that of a requested URL's query, `?size=200x100`, or a tuple `(200, 100)`.

        The answer is of the web engine's own types: a permanent redirect to the size in the bucket; the image itself,
        when it is not there yet, while one task of all machines stores it; or an error (400 a wrong size, 404 no such
        image, 503 try again), with its text as JSON.

        Raises:
            SettingsError: something is not configured.
        """
        opened, engine = self._opened(), self._engine
        if engine is None:
            raise SettingsError("It is not known whose responses to give: call configure_webengine(…) first")
        try:
            answer = self._answer(opened, requested_size(image_url_or_tuple))
        except SettingsError:
            raise
        except LazypixError as error:
            answer = error_answer(error)
        return engine.permanent_redirect(answer) if answer.status == 301 else engine.response(answer)

    def _answer(self, opened: Opened, size: Transform) -> Answer:
        library, fleet = opened.library(), fleet_of(self._hosts)
        transform = check_size(size, library.limits).as_format(self._format)
        image = library.get(self.image_id)  # a row, mostly from memory: a deleted image is nowhere any more
        url = opened.place.url(library.shelf.key(image.ident, transform))
        control = (b"cache-control", b"public, max-age=%d" % opened.max_age_s)
        if not fleet.is_stored(url):
            if library.stored_key(image, transform) is None:
                return _image(self._made(opened, fleet, image, transform), control)
            fleet.remember_stored(url)
        return Answer(status=301, headers=((b"location", url.encode()), control))

    def _made(self, opened: Opened, fleet: Fleet, image: Image, transform: Transform) -> Variant:
        """Return the image, made now; see to it that it is stored."""
        library: Library = opened.library()
        if s3_store_image is _STORE_HERE:
            return library.make(image, transform).delivered.result()  # and stored then, by one of all who make it
        made = library.make(image, transform, keeps=False).delivered.result()
        if fleet.begin_storing(opened.place.url(library.shelf.key(image.ident, transform))):
            _send(image.ident, self._ext, transform.stem, opened.place.to_json())
        return made


class S3FileStorage(_Configured):
    """Plain files, kept beside the images in S3, each under a name that nobody can guess."""

    def store(self, filepath: str | Path | BinaryIO, name: str | None = None) -> str:
        """Store the file at a path, or a binary file that is read to its end; return its public URL.

        Its last part is `name`, or the file's own; what comes before is random. Durable when this returns. All but
        images and JSON are sent as `application/octet-stream`, of which some servers make what the name suggests.

        Raises:
            BadRequest: it has no name, or one that cannot stand in a key.
            StoreFailed, StoreFull: it could not be stored.
        """
        opened = self._opened()
        path = Path(filepath) if isinstance(filepath, str | Path) else None
        own = path.name if path is not None else str(getattr(filepath, "name", ""))
        chosen = base_name(name if name is not None else own) or ""
        token = "".join(secrets.choice(_RANDOM) for _ in range(20))
        # The folders are those of the original package.
        key = f"{opened.place.base_path}{token[:3]}/{token[4:6]}/{token[7:9]}/{token}/{chosen}"
        try:
            check_key(key)
        except ValueError:
            raise BadRequest(f"name={(name or own)[:64]!r} is not accepted; accepted: a file's name") from None
        source = path if path is not None else filepath.read()  # type: ignore[union-attr]  # it is no path
        opened.library().store.put(key, source)
        return opened.place.url(key)


def configure(
    credentials: Mapping[str, str], bucket: str, base_url: str, base_path: str = "/", **settings: Hashable
) -> None:
    """Have this process know a bucket, with its keys: for workers, which run `s3_store_image` and no more.

    As `S3ImageStorage.configure`, which does the same for the process it is called in.

    Raises:
        SettingsError: names every fault.
    """
    configured(credentials, bucket, base_url, base_path, settings)


def close() -> None:
    """Close all that was opened in this process; to be called at its end, which it may also do without."""
    libraries.close_all()
    fleets.close_all()


def _send(image_id: str, ext: str, size: str, place: Mapping[str, str]) -> None:
    """Have a size stored by the task, or whatever was put in its place. It can be made again: trouble is logged."""
    try:
        getattr(s3_store_image, "delay", s3_store_image)(image_id, ext, size, place)
    except Exception as error:  # noqa: BLE001  # whatever a broker does; after a minute another request tries again
        kind = type(error).__name__
        log.warning("%s of %s is not being stored: no task could be sent (%s: %s)", size, image_id, kind, error)


def _image(made: Variant, control: tuple[bytes, bytes]) -> Answer:
    kind, length = made.media_type.encode(), b"%d" % len(made.body)
    headers = ((b"content-type", kind), (b"content-length", length), control, *SAFE)
    return Answer(status=200, headers=headers, body=made.body)


def _format(ext: str) -> str:
    found = by_extension(ext)
    if found is None or not found.saves:
        raise BadTransform(f"ext={ext[:20]!r} is not accepted; accepted: {', '.join(WRITABLE)}")
    return found.name
