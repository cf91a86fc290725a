"""What tests of libraries look at: an engine that is watched, and all that lies in a folder."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from tests.waiting import WAIT_S

from lazypix import Library, Limits
from lazypix.engine.threads import ThreadEngine
from lazypix.plan import Plan, Probe
from lazypix.stores.local import LocalStore


class WatchedEngine:
    """An engine in threads that counts, and does `before` and `after` around each rendering."""

    def __init__(self) -> None:
        self.rendered: list[Plan] = []
        self.before: Callable[[], None] = lambda: None
        self.check: Callable[[Plan], None] = lambda _: None
        self._threads = ThreadEngine(4)
        self._pool = ThreadPoolExecutor(8)

    @property
    def workers(self) -> int:
        return 4

    def inspect(self, path: str, limits: Limits) -> Future[Probe]:
        return self._threads.inspect(path, limits)

    def render(self, path: str, plan: Plan) -> Future[bytes]:
        self.rendered.append(plan)

        def work() -> bytes:
            self.before()
            self.check(plan)
            return self._threads.render(path, plan).result(WAIT_S)

        return self._pool.submit(work)

    def close(self) -> None:
        self._pool.shutdown()
        self._threads.close()


def all_blobs(library: Library) -> list[str]:
    """Return all keys of the store; nothing may lie where things are only on their way."""
    assert isinstance(library.store, LocalStore)
    root = library.store.root.parent
    assert list((root / "incoming").iterdir()) == []
    assert [path for folder in (".tmp", ".deleted") for path in (library.store.root / folder).iterdir()] == []
    return [blob.key for blob in library.store.list()]
