"""How long to wait before a request is sent again, and how often. Knows nothing of what is sent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lazypix.errors import LazypixError, TooSlow, Unreachable

_PASSING = (429, 502, 503, 504)
"""Too many requests, and servers or proxies that cannot do it now."""


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Waits between attempts: exponentially longer, and anywhere between nothing and that (full jitter).

    So clients that failed together do not come back together.
    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    attempts: int = 8
    """So many in a row may fail; then the last error is raised."""
    first_s: float = 0.2
    longest_s: float = 10.0
    patience_s: float = 60.0
    """The longest time that a server may ask for with `Retry-After`."""
    sleep: Callable[[float], None] = time.sleep
    _failures: int = field(default=0, init=False)

    def wait(self, error: LazypixError, *, passing: bool = False) -> None:
        """Wait before the next attempt, if `error` is one that passes with time, or here does (`passing`).

        Raises:
            LazypixError: `error`, when there is no next one.
        """
        self._failures += 1
        asked_s = error.retry_after_s or 0
        if not (passing or is_passing(error)) or self._failures >= self.attempts or asked_s > self.patience_s:
            raise error
        bound_s = min(self.longest_s, self.first_s * 2 ** (self._failures - 1))
        self.sleep(asked_s + random.uniform(0, bound_s))  # noqa: S311  # jitter, not a secret

    def progressed(self) -> None:
        """Count failures anew: something was achieved."""
        self._failures = 0


def is_passing(error: LazypixError) -> bool:
    """Tell whether the same request may succeed later."""
    return isinstance(error, Unreachable | TooSlow) or error.status in _PASSING
