"""Locks by key between the processes of one machine, kept by the kernel."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("lazypix")

_STRIPES = 4096
_SET_BYTE_LOCK: int = getattr(fcntl, "F_OFD_SETLK", 0) if sys.maxsize > 2**32 else 0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.05


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
    def hold(self, key: str, *, patience_s: float, may_wait: Callable[[], bool] = lambda: True) -> Iterator[bool]:
        """Hold the lock of `key`; give True, or False when it was not to be had for `patience_s` seconds.

        While it is not to be had, `may_wait` is asked again and again whether to wait; what it raises is raised.
        """
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big")
        name = "keys" if _SET_BYTE_LOCK else f"{number % _STRIPES:03x}"
        try:
            descriptor = os.open(f"{self._folder}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:  # going without the lock costs a second render at most
            log.warning("working without a lock (%s)", error.strerror)
            yield False
            return
        try:
            yield _wait_for(lambda: _try_byte(descriptor, number), patience_s, may_wait)
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


def _wait_for(take: Callable[[], bool], patience_s: float, may_wait: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + patience_s
    wait_s = _FIRST_WAIT_S
    while not take():
        if not may_wait() or time.monotonic() >= deadline:
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
