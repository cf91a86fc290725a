"""What has changed since it was remembered: one number for each image, seen by all processes of a machine."""

from __future__ import annotations

import hashlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

_STRIPES = 8192
_BYTES = 8


@dataclass(frozen=True, slots=True)
class Ticket:
    """Says when something was begun to be looked up; what was found is true while the ticket is valid."""

    stripe: int
    number: int


class Generations:
    """A file of numbers that all processes of one machine have in memory. Safe to use from many threads.

    Who remembers anything of an image takes a ticket *before* looking it up, and asks whether it is still valid
    before using what is remembered. Who deletes the image, or hears that another machine did, changes its number
    after the catalog says so: whatever was looked up before, by whichever process, is not used any more, even if it
    is remembered only afterwards. Images share the numbers, so that a deletion now and then makes others be looked up
    again.
    """

    def __init__(self, path: str | Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(descriptor).st_size < _STRIPES * _BYTES:
                os.truncate(descriptor, _STRIPES * _BYTES)
            _allocate(descriptor)
            shared = mmap.mmap(descriptor, _STRIPES * _BYTES)
        finally:
            os.close(descriptor)
        self._bytes = memoryview(shared)
        self._numbers = self._bytes.cast("Q")

    def ticket(self, ident: str) -> Ticket:
        """Return a ticket for what will be looked up of an image from now on."""
        stripe = _stripe(ident)
        return Ticket(stripe, self._numbers[stripe])

    def is_valid(self, ticket: Ticket) -> bool:
        """Tell whether nothing was changed since the ticket was taken."""
        return self._numbers[ticket.stripe] == ticket.number

    def change(self, ident: str) -> None:
        """Make all tickets of an image invalid."""
        # A new random number, not the next one: of two changes at once neither is lost.
        self._numbers[_stripe(ident)] = int.from_bytes(os.urandom(_BYTES), "little")

    def change_all(self) -> None:
        """Make all tickets invalid."""
        self._bytes[:] = os.urandom(_STRIPES * _BYTES)


def _stripe(ident: str) -> int:
    return int.from_bytes(hashlib.blake2b(ident.encode(), digest_size=4).digest(), "big") % _STRIPES


def _allocate(descriptor: int) -> None:
    """Have the disk's blocks now: with a full disk, writing into a hole of the mapped file would be a SIGBUS."""
    if hasattr(os, "posix_fallocate"):  # Linux
        os.posix_fallocate(descriptor, 0, _STRIPES * _BYTES)
