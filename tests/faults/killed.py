"""Works with a library until it kills itself, as `kill -9` does, before or after its n-th step.

A step is whatever is asked of the store, and every commit of the catalog. Run as
`python killed.py <pictures> <folder> <store> <catalog> <n>`; with n = 0 it lives, and tells how many steps there were.
What was acknowledged is told on standard output, a line each.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.catalog.database import Database
from lazypix.engine.threads import ThreadEngine
from lazypix.stores import Blob, BlobStore
from lazypix.stores.addresses import open_store


class Steps:
    """Counts steps, and ends the process at one of them."""

    def __init__(self, last: int) -> None:
        self.number = 0
        self._last = last

    def step(self, name: str) -> None:
        self.number += 1
        if self.number == self._last:
            print(f"killed at {name}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


class KillingStore(WrappedStore):
    """A store whose every call is a step, before it is carried out and after."""

    def __init__(self, store: BlobStore, steps: Steps) -> None:
        super().__init__(store)
        self._steps = steps

    def before(self, verb: str, key: str) -> None:
        self._steps.step(f"before {verb} {key}")

    def create(self, key: str, source: bytes | Path) -> None:
        super().create(key, source)
        self._steps.step(f"after create {key}")

    def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:
        super().put(key, source, durable=durable)
        self._steps.step(f"after put {key}")

    def delete_prefix(self, prefix: str) -> int:
        keys = [blob.key for blob in self.store.list(prefix)]
        for key in keys[:-1]:  # one by one, so that there is a middle
            self.store.delete(key)
            self._steps.step(f"within delete_prefix {prefix}")
        number = super().delete_prefix(prefix)
        self._steps.step(f"after delete_prefix {prefix}")
        return number

    def head(self, key: str) -> Blob:
        return self.store.head(key)


def kill_around_commits(steps: Steps) -> None:
    """Make the end of every transaction two steps: one before the commit, one after it."""
    writing = Database.writing

    @contextmanager
    def killing(self: Database) -> Iterator[Connection]:
        with writing(self) as connection:
            yield connection
            steps.step("before a commit")
        steps.step("after a commit")

    Database.writing = killing  # type: ignore[method-assign]


def work(library: Library, pictures: Path) -> None:
    """Upload, make variants, delete; tell what was acknowledged."""
    owner = library.catalog.keys.list()[0].id
    for ident in ("a", "b"):
        library.add(pictures / f"{ident}.jpg", ident=ident, metadata={"name": ident}, owner=owner)
        print(f"added {ident}", flush=True)
    library.variant("a", "30x")
    library.variant("b", "30x")
    library.delete("a")
    print("deleted a", flush=True)
    library.add(pictures / "c.jpg", ident="c", owner=owner)
    print("added c", flush=True)
    library.variant("c", "20x")


def main() -> None:
    pictures, folder, store, catalog, last = sys.argv[1:]
    secrets = {"access_key": os.environ["TEST_ACCESS_KEY"], "secret_key": os.environ["TEST_SECRET_KEY"]}
    steps = Steps(int(last))
    opened = open_store(store, secrets=secrets if store.startswith("s3:") else {})
    with Library.open(
        folder, catalog=catalog, store=KillingStore(opened, steps), engine=ThreadEngine(1), sidecars=True
    ) as library:
        kill_around_commits(steps)
        work(library, Path(pictures))
    print(f"steps {steps.number}", flush=True)


if __name__ == "__main__":
    main()
