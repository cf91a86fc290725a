"""What goes wrong with object storage, told without the addresses in its texts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from lazypix.errors import BlobExists, BlobMissing, StoreFailed, StoreFull

log = logging.getLogger("lazypix")

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


def _reason(error: Exception) -> str:
    """Return the service's own code, or its status, or the kind of error; never an address or a key."""
    text = str(error)
    for pattern in (
        r"<Code>(\w{1,60})</Code>",
        r"status code: (\d{3} [A-Za-z ]{1,40})",
        r"(HTTP error|operation timed out)",
    ):
        found = re.search(pattern, text)
        if found:
            return found.group(1)
    return type(error).__name__
