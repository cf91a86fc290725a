"""A store around another one, for tests that count, delay or break what is asked of it."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path

from lazypix.stores import Blob, BlobStore, Capabilities, UploadAddress


class WrappedStore:
    """Forwards everything; `before` is called with the verb and the key first, and may raise."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.calls: builtins.list[tuple[str, str]] = []

    def before(self, verb: str, key: str) -> None:
        self.calls.append((verb, key))

    @property
    def capabilities(self) -> Capabilities:
        return self.store.capabilities

    def create(self, key: str, source: bytes | Path) -> None:
        self.before("create", key)
        self.store.create(key, source)

    def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:
        self.before("put", key)
        self.store.put(key, source, durable=durable)

    def get(self, key: str) -> bytes:
        self.before("get", key)
        return self.store.get(key)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.before("read", key)
        return self.store.read(key, start, length)

    def head(self, key: str) -> Blob:
        self.before("head", key)
        return self.store.head(key)

    def local_path(self, key: str) -> Path | None:
        return self.store.local_path(key)

    def url(self, key: str, *, expires_s: int | None) -> str | None:
        return self.store.url(key, expires_s=expires_s)

    def upload_address(self, key: str, *, expires_s: int) -> UploadAddress | None:
        return self.store.upload_address(key, expires_s=expires_s)

    def list(self, prefix: str = "") -> Iterator[Blob]:
        self.before("list", prefix)
        return self.store.list(prefix)

    def delete(self, key: str) -> bool:
        self.before("delete", key)
        return self.store.delete(key)

    def delete_prefix(self, prefix: str) -> int:
        self.before("delete_prefix", prefix)
        return self.store.delete_prefix(prefix)

    def check(self) -> None:
        self.before("check", "")
        self.store.check()

    def sweep(self, *, older_than_s: float) -> int:
        self.before("sweep", "")
        return self.store.sweep(older_than_s=older_than_s)

    def close(self) -> None:
        self.store.close()
