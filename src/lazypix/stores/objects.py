"""Object storage as a store: S3 and whatever speaks its protocol, Google Cloud Storage, Azure Blob Storage."""

from __future__ import annotations

import hashlib
import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lazypix.errors import BlobExists, BlobMissing, StoreFailed, StoreFull
from lazypix.formats import by_extension
from lazypix.stores import PIECE_BYTES, Blob, Capabilities, UploadAddress, check_key, pieces_of
from lazypix.stores.object_errors import sent, translated

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    Client = S3Store | GCSStore | AzureStore

log = logging.getLogger("lazypix")

_PART_BYTES = 8 * 1024 * 1024
_RANGE_BYTES = 4 * 1024 * 1024
_CREATE_WHOLE_BYTES = 128 * 1024 * 1024  # what is larger goes in parts, which cannot be conditional
_PROBE = "lazypix.probe"  # no ident has a dot
TRIES = 4
"""How often a request is tried before the service is said to have failed."""
CACHE_CONTROL = "public, max-age=86400"
_FIRST_WAIT_S = 0.1
_BULK = 500
_READS = 2  # before bytes that differ from their checksum are said to be wrong
_PROBE_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Abilities:
    """What was found out about a service by trying."""

    creates_once: bool
    reads_ranges: bool
    tags_are_md5: bool


class ObjectStore:
    """Keeps each blob as an object `<prefix>/<key>` in a bucket (or container).

    `make_client(retries)` makes an obstore client, whose requests are retried with growing, jittered waits. What the
    service can do is tried out once, before it is first relied upon: some S3 servers ignore conditions and replace
    what is there, or answer a range with everything. `cache_control` is set on every object; `public_url` is where
    the world reads the bucket, for `url`. A body over 128 MiB is looked for and then sent in parts: no condition
    guards those, only the claim before them. Not to be used in a forked child of a process that used it before.
    """

    def __init__(
        self,
        make_client: Callable[[int], Client],
        *,
        name: str,
        public_url: str = "",
        cache_control: str = CACHE_CONTROL,
        retries: int = TRIES,
    ) -> None:
        self._client = make_client(retries)
        # Whether a create whose answer was lost has happened can only be told here, so that its retries are ours.
        self._untiring = make_client(0)
        self._name = name
        self._is_azure = name.startswith("az:")
        self._public_url = public_url.rstrip("/")
        self._cache_control = cache_control
        self._probing = threading.Lock()
        self._found: _Abilities | None = None
        self._probe_from = 0.0

    def __repr__(self) -> str:
        return f"ObjectStore({self._name!r})"

    @property
    def capabilities(self) -> Capabilities:
        able = self._abilities()
        return Capabilities(
            creates_once=able.creates_once,
            reads_ranges=able.reads_ranges,
            lists_in_order=False,
            takes_uploads=True,
        )

    def create(self, key: str, source: bytes | Path) -> None:
        check_key(key)
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if self._abilities().creates_once and size <= _CREATE_WHOLE_BYTES:
            self._create_whole(key, source if isinstance(source, bytes) else source.read_bytes())
        else:
            with suppress(BlobMissing):
                self.head(key)
                raise BlobExists(f"There is already a blob under {key}")
            self.put(key, source)
        if isinstance(source, Path):
            source.unlink()

    def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:  # noqa: ARG002
        import obstore

        able, size = self._abilities(), len(source) if isinstance(source, bytes) else source.stat().st_size
        with translated("write", check_key(key)):
            result = sent(
                obstore.put,
                self._client,
                key,
                source,
                attributes=self._attributes(key),
                chunk_size=_PART_BYTES,
                max_concurrency=4,
            )
        if size <= _PART_BYTES and able.tags_are_md5:
            self._check_tag(key, result["e_tag"], source if isinstance(source, bytes) else source.read_bytes())
            return
        with suppress(BlobMissing):  # deleted since
            if self.head(key).size != size:
                raise StoreFailed(f"The store has not all of {key}")

    def get(self, key: str) -> bytes:
        import obstore

        for reads_left in reversed(range(_READS)):
            with translated("read", check_key(key)):
                result = sent(obstore.get, self._client, key)
                body = result.bytes().to_bytes()
            if len(body) == result.meta["size"] and self._is_as_stored(body, result.meta["e_tag"]):
                return body
            if not reads_left:
                break
        raise StoreFailed(f"The store gave other bytes of {key} than it has")

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        size = self.head(key).size
        stop = size if length is None else min(size, start + length)
        if self._may_read_ranges():
            yield from self._in_ranges(key, start, stop)
        else:
            yield from self._in_stream(key, start, stop)

    def head(self, key: str) -> Blob:
        import obstore

        with translated("read", check_key(key)):
            return _blob(sent(obstore.head, self._client, key))

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def url(self, key: str, *, expires_s: int | None) -> str | None:
        import obstore

        check_key(key)
        if expires_s is None:
            return f"{self._public_url}/{quote(key, safe='/,=')}" if self._public_url else None
        with translated("sign", key):
            return obstore.sign(self._client, "GET", key, timedelta(seconds=expires_s))

    def upload_address(self, key: str, *, expires_s: int) -> UploadAddress | None:
        import obstore

        with translated("sign", check_key(key)):
            url = obstore.sign(self._client, "PUT", key, timedelta(seconds=expires_s))
        # Source: Azure's documentation, "Put Blob"; the others want nothing.
        return UploadAddress(url=url, headers={"x-ms-blob-type": "BlockBlob"} if self._is_azure else {})

    def list(self, prefix: str = "") -> Iterator[Blob]:
        import obstore

        folder = check_key(prefix.rstrip("/")) if prefix else None
        last = ""  # one that is replaced at this moment is listed twice by some
        with translated("list", prefix):
            for page in obstore.list(self._client, folder):
                for found in page:
                    if found["path"] != last and not found["path"].startswith(f"{_PROBE}/"):
                        yield _blob(found)
                    last = found["path"]

    def delete(self, key: str) -> bool:
        import obstore

        try:
            self.head(key)
        except BlobMissing:
            return False
        with suppress(BlobMissing), translated("delete", key):
            sent(obstore.delete, self._client, key)
        return True

    def delete_prefix(self, prefix: str) -> int:
        import obstore

        check_key(prefix.rstrip("/"))
        keys = [blob.key for blob in self.list(prefix)]
        for start in range(0, len(keys), _BULK):
            with suppress(BlobMissing), translated("delete", prefix):
                sent(obstore.delete, self._client, keys[start : start + _BULK])
        return len(keys)

    def check(self) -> None:
        import obstore

        self._abilities()
        with suppress(BlobMissing), translated("read", _PROBE):
            sent(obstore.head, self._client, _PROBE)

    def sweep(self, *, older_than_s: float) -> int:
        import obstore

        latest = time.time() - older_than_s
        with translated("list", _PROBE):
            pages = obstore.list(self._client, _PROBE)
            left = [found["path"] for page in pages for found in page if found["last_modified"].timestamp() <= latest]
            for path in left:
                sent(obstore.delete, self._client, path)
        return len(left)

    def close(self) -> None:
        pass

    # --- writing -----------------------------------------------------------------------------------------------

    def _create_whole(self, key: str, body: bytes) -> None:
        import obstore

        unsure = False  # whether a try before may have stored it without our hearing of it
        for attempt in range(TRIES):
            try:
                with translated("write", key):
                    attributes = self._attributes(key)
                    result = obstore.put(
                        self._untiring, key, body, mode="create", use_multipart=False, attributes=attributes
                    )
            except BlobExists:
                if unsure and self.get(key) == body:
                    return
                raise
            except StoreFailed:
                if attempt == TRIES - 1:
                    raise
                unsure = True
                time.sleep(_FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
            else:
                if self._abilities().tags_are_md5:
                    self._check_tag(key, result["e_tag"], body)
                return

    def _attributes(self, key: str) -> dict[str, str]:
        extension = key.rpartition(".")[2]
        found = by_extension(extension)
        kind = found.mime if found else "application/json" if extension == "json" else "application/octet-stream"
        return {"Content-Type": kind, "Cache-Control": self._cache_control}

    def _check_tag(self, key: str, tag: str | None, body: bytes) -> None:
        """Compare what the service says of an object with what was sent."""
        if (tag or "").strip('"') != hashlib.md5(body, usedforsecurity=False).hexdigest():
            raise StoreFailed(f"The store has other bytes under {key} than were sent")

    def _is_as_stored(self, body: bytes, tag: str | None) -> bool:
        """Compare bytes that came with the service's own checksum, where it has one of the whole.

        A poor service gives bytes and tag of different moments while a blob is replaced.
        """
        plain = (tag or "").strip('"')
        able = self._found
        if able is None or not (able.tags_are_md5 and able.creates_once) or not re.fullmatch("[0-9a-f]{32}", plain):
            return True
        return plain == hashlib.md5(body, usedforsecurity=False).hexdigest()

    # --- reading in pieces -------------------------------------------------------------------------------------

    def _in_ranges(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """One bounded request after the other: a client that reads slowly holds no connection to the service."""
        import obstore

        for begin in range(start, stop, _RANGE_BYTES):
            end = min(stop, begin + _RANGE_BYTES)
            with translated("read", key):
                part = sent(obstore.get_range, self._client, key, start=begin, end=end).to_bytes()
            if len(part) != end - begin:
                raise StoreFailed(f"The store gave {len(part)} of {end - begin} bytes of {key}")
            yield from pieces_of(part)

    def _in_stream(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Read everything, and pass on what is wanted."""
        import obstore

        position = 0
        with translated("read", key):
            for chunk in sent(obstore.get, self._client, key).stream(min_chunk_size=PIECE_BYTES):
                piece = bytes(chunk)
                wanted = piece[max(0, start - position) : max(0, stop - position)]
                position += len(piece)
                yield from pieces_of(wanted)
                if position >= stop:
                    return

    # --- what the service can do -------------------------------------------------------------------------------

    def _abilities(self) -> _Abilities:
        if self._found is None:
            with self._probing:
                if self._found is None:
                    self._found = self._probe()
                    log.info("%s: %s", self._name, _told(self._found))
        return self._found

    def _may_read_ranges(self) -> bool:
        """Tell whether ranges are worth a try; who may not write cannot find out, and still read."""
        if self._found is None and time.monotonic() < self._probe_from:
            return True
        try:
            return self._abilities().reads_ranges
        except (StoreFailed, StoreFull):
            self._probe_from = time.monotonic() + _PROBE_AGAIN_S
            return True

    def _probe(self) -> _Abilities:
        """Try out on an object of our own what a service may promise and not keep.

        Raises:
            StoreFailed: it does not answer, refuses us, or does not even return what was written.
        """
        import obstore

        key, body = f"{_PROBE}/{uuid.uuid4().hex}", b"0123456789"
        with translated("write", "a probe"):
            tag = obstore.put(self._client, key, body)["e_tag"]
            try:
                if sent(obstore.get, self._client, key).bytes().to_bytes() != body:
                    raise StoreFailed(f"{self._name} does not return what was written")
                if key not in {found["path"] for page in obstore.list(self._client, _PROBE) for found in page}:
                    raise StoreFailed(f"{self._name} does not list what was written")
                return _Abilities(
                    creates_once=_refuses(lambda: obstore.put(self._untiring, key, b"other", mode="create")),
                    reads_ranges=_gives(lambda: sent(obstore.get_range, self._client, key, start=2, end=5), b"234"),
                    tags_are_md5=(tag or "").strip('"') == hashlib.md5(body, usedforsecurity=False).hexdigest(),
                )
            finally:
                sent(obstore.delete, self._client, key)


def _refuses(create: Callable[[], object]) -> bool:
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    try:
        create()
    except (AlreadyExistsError, PreconditionError):
        return True
    except Exception as error:  # "not implemented" comes in many ways
        log.debug("a conditional write failed", exc_info=error)
    return False


def _gives(read: Callable[[], Any], expected: bytes) -> bool:
    try:
        return bool(read().to_bytes() == expected)
    except Exception as error:  # a service without ranges has many ways to say so
        log.debug("a range could not be read", exc_info=error)
        return False


def _told(able: _Abilities) -> str:
    lacks = []
    if not able.creates_once:
        lacks.append("ignores conditional writes (the catalog alone keeps idents apart)")
    if not able.reads_ranges:
        lacks.append("has no ranges (parts of originals are read from the beginning)")
    if not able.tags_are_md5:
        lacks.append("gives no MD5 of what was stored (the size is compared)")
    return "can do everything" if not lacks else "; ".join(lacks)


def _blob(found: Mapping[str, Any]) -> Blob:
    return Blob(key=found["path"], size=found["size"], modified=found["last_modified"])
