"""A store in this process' memory, for tests: nothing survives the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from lazypix.errors import BlobExists, BlobMissing
from lazypix.stores import Blob, Capabilities, UploadAddress, check_key, pieces_of


class MemoryStore:
    """Keeps blobs in a dictionary."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[str, tuple[bytes, Blob]] = {}

    def __repr__(self) -> str:
        return "MemoryStore()"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def create(self, key: str, source: bytes | Path) -> None:
        self._set(key, source, replace=False)

    def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:  # noqa: ARG002
        self._set(key, source, replace=True)

    def get(self, key: str) -> bytes:
        return self._found(key)[0]

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield from pieces_of(self._found(key)[0], start, length)

    def head(self, key: str) -> Blob:
        return self._found(key)[1]

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def url(self, key: str, *, expires_s: int | None) -> str | None:  # noqa: ARG002
        check_key(key)
        return None

    def upload_address(self, key: str, *, expires_s: int) -> UploadAddress | None:  # noqa: ARG002
        check_key(key)
        return None

    def list(self, prefix: str = "") -> Iterator[Blob]:
        with self._lock:
            found = sorted(key for key in self._blobs if key.startswith(prefix))
            blobs = [self._blobs[key][1] for key in found]
        yield from blobs

    def delete(self, key: str) -> bool:
        with self._lock:
            return self._blobs.pop(check_key(key), None) is not None

    def delete_prefix(self, prefix: str) -> int:
        check_key(prefix.rstrip("/"))
        with self._lock:
            doomed = [key for key in self._blobs if key.startswith(prefix)]
            for key in doomed:
                del self._blobs[key]
            return len(doomed)

    def check(self) -> None:
        pass

    def sweep(self, *, older_than_s: float) -> int:  # noqa: ARG002
        return 0

    def close(self) -> None:
        pass

    def _found(self, key: str) -> tuple[bytes, Blob]:
        with self._lock:
            found = self._blobs.get(check_key(key))
        if found is None:
            raise BlobMissing(f"There is no blob under {key}")
        return found

    def _set(self, key: str, source: bytes | Path, *, replace: bool) -> None:
        body = source if isinstance(source, bytes) else source.read_bytes()
        blob = Blob(key=check_key(key), size=len(body), modified=datetime.now(UTC))
        with self._lock:
            if key in self._blobs and not replace:
                raise BlobExists(f"There is already a blob under {key}")
            self._blobs[key] = body, blob
