"""Free loopback ports, of which no two test processes side by side, and no two tests after another, get the same.

They lie below those that the kernel gives outgoing connections, which may be taken at any moment.
Source: Linux, ip-sysctl, ip_local_port_range (32768 to 60999).
"""

from __future__ import annotations

import itertools
import os
import random
import re
import socket

FIRST, EACH, BLOCKS = 10_000, 2_000, 11


def _block() -> int:
    """Return which block of ports is this process'; workers of pytest-xdist are called gw0, gw1 and so on."""
    number = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    return 0 if number is None else 1 + int(number[1]) % (BLOCKS - 1)


# A process that a test starts shares its block, and begins elsewhere in it.
_candidates = itertools.count(random.SystemRandom().randrange(EACH))


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, each given only once by this process (until it has given all)."""
    found: list[int] = []
    while len(found) < count:
        port = FIRST + EACH * _block() + next(_candidates) % EACH
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


def free_port() -> int:
    (port,) = free_ports(1)
    return port
