"""Single flight: one worker for one piece of work in this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from lazypix.errors import Busy

log = logging.getLogger("lazypix")
T = TypeVar("T")


@dataclass(slots=True)
class Flight(Generic[T]):
    """One piece of work that many may wait for. Both futures are shared: nobody may cancel them."""

    delivered: Future[T] = field(default_factory=Future)
    """The result, or the error that there will be none."""
    landed: Future[None] = field(default_factory=Future)
    """Done when the work has ended, and its key is free again; never an error."""
    leave: Callable[[], None] = lambda: None
    """To be called, once, by one who waits no longer; work that has not begun is dropped with the last of them."""
    hurry: Callable[[], None] = lambda: None
    """To be called by one who waits for work that may have been begun in the background."""


Work = Callable[[Callable[[T], None]], None]
"""Work is given a function that delivers its result, and may go on after it has called that."""


class Queue(Protocol):
    """Where work is done, in its turn."""

    def submit(self, work: Callable[[], None], /) -> Future[None]:
        """Have work done; until it has begun, its future can be cancelled.

        Raises:
            Busy: there is no room for it.
            RuntimeError: nothing is begun any more.
        """
        ...

    def hurry(self) -> None:
        """Somebody waits for the work: it goes before what is done in the background."""
        ...


class SingleFlight(Generic[T]):
    """Runs work for a key once, however many ask for it at the same time; all get the same result or error.

    Joining what is under way, or waits in its queue, is always possible.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # dropping work ends it, in the same thread
        self._flights: dict[str, Flight[T]] = {}
        self._waiting: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, key: str, work: Work[T], queue: Queue) -> Flight[T]:
        """Return the work that is under way for `key`, or have the queue do it.

        Raises:
            Busy: there is no room for it in the queue.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                self._waiting[key] += 1
                return flight
            flight = self._flights[key] = Flight(hurry=queue.hurry)
            self._waiting[key] = 1
            flight.delivered.set_running_or_notify_cancel()  # one who gives up cannot cancel it for the others
            flight.landed.set_running_or_notify_cancel()
        try:
            task = queue.submit(partial(self._fly, key, work, flight))
        except Busy as error:
            self._land(key, flight, error)  # for those who joined meanwhile
            raise
        except RuntimeError:  # nothing is begun any more
            self._call_off(key, flight)
        else:
            flight.leave = lambda: self._leave(key, flight, task)
            task.add_done_callback(lambda ended: self._call_off(key, flight) if ended.cancelled() else None)
        return flight

    def _leave(self, key: str, flight: Flight[T], task: Future[None]) -> None:
        with self._lock:
            if self._flights.get(key) is not flight:
                return
            self._waiting[key] -= 1
            if self._waiting[key] > 0 or not task.cancel():
                return

    def _fly(self, key: str, work: Work[T], flight: Flight[T]) -> None:
        try:
            work(flight.delivered.set_result)
        except BaseException as error:  # handed to every waiter
            if flight.delivered.done():
                log.error("%s was delivered, but its work failed afterwards", key, exc_info=error)
            self._land(key, flight, error)
        else:
            self._land(key, flight, RuntimeError(f"the work for {key} delivered nothing"))

    def _call_off(self, key: str, flight: Flight[T]) -> None:
        self._land(key, flight, Busy("Shutting down; ask again in a moment"))

    def _land(self, key: str, flight: Flight[T], error: BaseException) -> None:
        """Free the key; `error` is for those who wait, if nothing was delivered."""
        with self._lock:
            del self._flights[key]
            del self._waiting[key]
        if not flight.delivered.done():
            flight.delivered.set_exception(error)
        flight.landed.set_result(None)
