"""What the server's processes do when they start: bound their allocator, and never outlive the server."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import MutableMapping

# glibc's malloc gives every thread an arena and keeps what was freed; with these three settings the memory of a
# mixed load stays flat at about half (measured; see docs/performance.md). Variable, parameter of mallopt(3), value.
_MALLOC = (
    ("MALLOC_ARENA_MAX", -8, 2),
    ("MALLOC_TRIM_THRESHOLD_", -1, 131_072),
    ("MALLOC_MMAP_THRESHOLD_", -3, 131_072),
)


def bound_allocator_of_children(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set glibc's allocator for processes that will be started, where the operator has not set anything."""
    if _is_ours(environment):
        for name, _, value in _MALLOC:
            environment.setdefault(name, str(value))


def bound_own_allocator(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set glibc's allocator for this process, where the operator has not set anything."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if _is_ours(environment) else None
    for name, parameter, value in _MALLOC:
        if mallopt is not None and name not in environment:
            mallopt(parameter, value)


def follow_parent(parent: int) -> None:
    """Never outlive a killed server: end this process when its parent is gone. For a thread; does not return.

    Linux could tell us (prctl PR_SET_PDEATHSIG), but means the parent's *thread*, which may end long before.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _is_ours(environment: MutableMapping[str, str]) -> bool:
    return sys.platform.startswith("linux") and "LD_PRELOAD" not in environment  # a preloaded jemalloc knows better
