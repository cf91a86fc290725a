"""What goes wrong with object storage, told without the addresses in its texts."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from lazypix.errors import BlobExists, BlobMissing, StoreFailed, StoreFull

log = logging.getLogger("lazypix")

T = TypeVar("T")

_UNSENT, _UNSENT_TRIES = "connection was not ready", 3
_FULL = ("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "AccountQuotaExceeded", "507 ")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_REASONS = (r"<Code>(\w{1,60})</Code>", r"status code: (\d{3} [A-Za-z ]{1,40})", r"(operation timed out|HTTP error)")


@contextmanager
def translated(doing: str, key: str) -> Iterator[None]:
    """Turn obstore's errors into ours; `doing` is a verb, `key` what it is done to."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise BlobExists(f"There is already a blob under {key}") from None
    except FileNotFoundError as error:
        if any(code in str(error) for code in _NO_BUCKET):
            raise StoreFailed("The bucket of the store does not exist") from None
        raise BlobMissing(f"There is no blob under {key}") from None
    except (BaseError, OSError, TimeoutError) as error:
        log.debug("the store could not %s %s", doing, key, exc_info=error)
        if any(code in str(error) for code in _FULL):
            raise StoreFull(f"No space left to {doing} {key}") from None
        raise StoreFailed(f"Could not {doing} {key} ({_reason(error)})") from None


def sent(ask: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Have obstore ask something, and once more if the request never left.

    A connection of its pool may be closed by the service just when it is taken: hyper calls that "connection was not
    ready", and object_store, which retries what was sent, does not retry it.
    """
    from obstore.exceptions import BaseError

    for _ in range(_UNSENT_TRIES):
        try:
            return ask(*arguments, **options)
        except BaseError as error:
            if _UNSENT not in str(error):
                raise
    return ask(*arguments, **options)


def _reason(error: Exception) -> str:
    """Return the service's own code, or its status, or the kind of error; never an address or a key."""
    found = next((match for pattern in _REASONS if (match := re.search(pattern, str(error)))), None)
    return found.group(1) if found is not None else type(error).__name__
