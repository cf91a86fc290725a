"""One worker for one piece of work: in the process, among those of a machine, and among machines.

`flight` is for the process, `locks` for the processes of a machine. Machines take leases: `Leases` is the contract of
those who give them, and every implementation passes `tests/contracts`; `holding` holds one while work goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

TIMEOUT_S = 1.0
"""How long a server of leases may let one call wait: longer, and doing the work twice is the better deal."""


class LeaseFailed(Exception):
    """A server of leases did not answer, or refused. No caller of `holding` sees it: work goes on without a lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What was given to one holder, for a time."""

    key: str
    token: str
    """The holder's own, 32 hex digits; nobody else has it."""
    fence: int
    """Greater than that of every holder of this key before, and more than 0: who finds a greater one where it writes
    comes too late. It follows the time in microseconds since 1970, so that a server that lost its memory goes on
    above; numbers can only go back with a clock that does."""
    early_s: float = 0.0
    """So much sooner than was asked for it may end, each time that it is renewed too."""


class Leases(Protocol):
    """Gives each key to one holder at a time, among many machines. Safe to use from many threads.

    Keys are any text. Nothing waits for a holder: every method is one try. A lease lasts for `ttl_s` seconds (more
    than 0) by the server's own clock, or up to `early_s` less. A clock of whole seconds may make it more than that if
    `ttl_s` is no whole number, or less than two. A server that loses its memory ends it sooner. So
    a holder can never be sure that it is the only one: it looks at its clock, and what it writes carries its fence.

    Every method but `close` raises `LeaseFailed`. It is then not known whether it was carried out; a lease that was
    given and not heard of ends by itself. No error and no `repr` holds a secret.
    """

    def take(self, key: str, *, ttl_s: float) -> Lease | None:
        """Take the key's lease; None: somebody has it. Of several at once exactly one gets it."""
        ...

    def renew(self, lease: Lease, *, ttl_s: float) -> bool:
        """Make the lease last for `ttl_s` from now on; False: it ended, whoever has it now."""
        ...

    def release(self, lease: Lease) -> bool:
        """End the lease; False: it had ended, and whoever has it now keeps it."""
        ...

    def close(self) -> None:
        """Give connections back. Leases are not released. A second time does nothing."""
        ...
