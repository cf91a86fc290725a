"""Threads for work on many images: as many as wanted, with as much waiting as keeps them busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType


class Crew:
    """Works through what it is given. A context manager; its end waits until everything is done.

    What a piece of work raises ends everything: nothing more is begun, and the giver gets it.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lazypix-upkeep")
        self._places = threading.Semaphore(2 * threads)
        self._error: BaseException | None = None

    def give(self, work: Callable[[], None]) -> None:
        """Have `work` done; waits while as much as twice the threads is not done yet."""
        self._places.acquire()
        if self._error is not None:
            raise self._error
        self._pool.submit(self._do, work)

    def _do(self, work: Callable[[], None]) -> None:
        try:
            if self._error is None:
                work()
        except BaseException as error:  # noqa: BLE001  # raised by `give` or at the end
            self._error = error
        finally:
            self._places.release()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None and self._error is not None:
            raise self._error
