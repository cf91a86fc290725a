"""One worker for one piece of work: in the process (`SingleFlight`) and across processes (`KeyLocks`)."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import random
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from lazypix.errors import Busy

log = logging.getLogger("lazypix")
T = TypeVar("T")

_STRIPES = 4096
_SET_BYTE_LOCK: int = getattr(fcntl, "F_OFD_SETLK", 0) if sys.maxsize > 2**32 else 0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.05


@dataclass(slots=True)
class Flight(Generic[T]):
    """One piece of work that many may wait for. Both futures are shared: nobody may cancel them."""

    delivered: Future[T] = field(default_factory=Future)
    """The result, or the error that there will be none."""
    landed: Future[None] = field(default_factory=Future)
    """Done when the work has ended, and its key is free again; never an error."""
    leave: Callable[[], None] = lambda: None
    """To be called, once, by one who waits no longer; work that has not begun is dropped with the last of them."""


Work = Callable[[Callable[[T], None]], None]
"""Work is given a function that delivers its result, and may go on after it has called that."""


class SingleFlight(Generic[T]):
    """Runs work for a key once, however many ask for it at the same time; all get the same result or error.

    At most `max_keys` pieces of work are under way or waiting for an executor; joining one that is there is
    always possible.
    """

    def __init__(self, *, max_keys: int) -> None:
        self._max_keys = max_keys
        self._lock = threading.RLock()  # dropping work ends it, in the same thread
        self._flights: dict[str, Flight[T]] = {}
        self._waiting: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, key: str, work: Work[T], executor: Executor) -> Flight[T]:
        """Return the work that is under way for `key`, or have the executor do it.

        Raises:
            Busy: `max_keys` other keys are under way.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                self._waiting[key] += 1
                return flight
            if len(self._flights) >= self._max_keys:
                raise Busy(f"{self._max_keys} images are being made; ask again in a moment")
            flight = self._flights[key] = Flight()
            self._waiting[key] = 1
            flight.delivered.set_running_or_notify_cancel()  # one who gives up cannot cancel it for the others
            flight.landed.set_running_or_notify_cancel()
        try:
            task = executor.submit(self._fly, key, work, flight)
        except RuntimeError:  # the executor is shut down
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


class KeyLocks:
    """Locks by key between all processes of one machine that use the same folder.

    The kernel releases the lock of a process that dies, so there is nothing to expire or to clean up.

    On Linux a key is one byte of a file, far beyond its end. Elsewhere keys are spread over `_STRIPES` lock files;
    two keys on one file only wait for each other, and a holder must not take a second lock.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def hold(self, key: str, *, patience_s: float) -> Iterator[bool]:
        """Hold the lock of `key`; give True, or False when it was not to be had for `patience_s` seconds."""
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big")
        name = "keys" if _SET_BYTE_LOCK else f"{number % _STRIPES:03x}"
        try:
            descriptor = os.open(f"{self._folder}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:  # going without the lock costs a second render at most
            log.warning("working without a lock (%s)", error.strerror)
            yield False
            return
        try:
            yield _wait_for(lambda: _try_byte(descriptor, number), patience_s)
        finally:
            os.close(descriptor)  # releases the lock


class FolderInUse:
    """Tells whether this is the only process that uses a folder.

    Every user holds a shared lock for as long as it lives. Who can have it exclusively for a moment is alone:
    whatever looks unfinished in the folder then was left by a process that died.
    """

    def __init__(self, path: str | Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._left = False

    def join(self, when_alone: Callable[[], None]) -> None:
        """Become a user of the folder; when there is no other, do `when_alone` first."""
        if _try_lock(self._descriptor, fcntl.LOCK_EX):
            when_alone()
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Stop being a user of the folder, if that is not so already."""
        if not self._left:
            self._left = True
            os.close(self._descriptor)


def _wait_for(take: Callable[[], bool], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    wait_s = _FIRST_WAIT_S
    while not take():
        if time.monotonic() >= deadline:
            return False
        time.sleep(wait_s * random.uniform(0.5, 1.5))  # noqa: S311  # jitter, not a secret
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
    return True


def _try_byte(descriptor: int, position: int) -> bool:
    """Try to lock one byte for this open file. Source: Linux, fcntl_locking(2), "Open file description locks"."""
    if not _SET_BYTE_LOCK:
        return _try_lock(descriptor, fcntl.LOCK_EX)
    lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, position, 1, 0)  # struct flock
    try:
        fcntl.fcntl(descriptor, _SET_BYTE_LOCK, lock)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
