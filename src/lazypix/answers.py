"""Finished answers that machines share: one makes a variant, the others find it in a common cache."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
import threading
from dataclasses import dataclass
from datetime import datetime

from lazypix.cache import Cache
from lazypix.http import Representation
from lazypix.plan import ENGINE_VERSION

QUIET_S = 30.0

_FORMAT = b"lpx1"  # the first bytes of every value; another number for another encoding
_CLOSED = b"closed"
_DIGEST_BYTES = 16
_LIBRARY = "generation"
_MOST_UNSENT = 10_000
_SENT_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an answer depends on besides the image: the raw target, and the formats where they are negotiated."""

    path: str
    query: str
    formats: tuple[str, ...] | None = None
    """`http.ranked_formats` of the client when the answer depends on `Accept`, else None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An image's generation at one moment: what is learnt about the image afterwards may be shared under it."""

    ident: str
    generation: str


class SharedAnswers:
    """Keeps representations, those whose bodies are bytes, in a cache of many machines. Thread-safe.

    **The order that callers keep.** To answer: take a `ticket`; `get`; if there is nothing, look at the catalog, make
    the answer, and `set` it with the same ticket. To delete or change an image: commit that to the catalog, then
    `forget`. A crash between the two leaves it to whoever finishes the deletion to call `forget` (again).

    **Guarantee.** Once `forget` has reached the cache, no machine finds with a new ticket what was shared with an
    older one. Answers are kept under their image's generation, a random number that the first who asks puts into the
    cache; `forget` ends it, and numbers do not come again. An answer that was begun before the deletion and is stored
    after it therefore lies under a dead number, however late it comes: its ticket was taken before the catalog was
    looked at.

    For `quiet_s` seconds after `forget` there is no new generation: `ticket` gives None, and everybody looks at the
    catalog. This covers machines that take what they remember of an image for the catalog, for a shorter time.

    **What can be lost.** Any entry, at any time: a lost generation costs misses. A `forget` that does not reach the
    cache is remembered in this process, which finds no answers of that image until it got through; it is tried again
    with each `ticket`. Until then other machines, if they do reach the cache, may send what they find there.
    The same holds when the process ends before, and when the cache itself comes back with an older state (a
    replica that took over, a snapshot). An answer lives for `ttl_s` in any case: that bounds every such delay.

    **Clocks.** Nothing is compared between machines. Times to live are the cache server's own, and only say when
    something is gone; a clock that jumps makes it go sooner, or lets it stay longer.

    **Trust.** Values carry a checksum over themselves and their key: what is damaged, cut off, foreign, or
    another key's, is a miss. That is no signature: who can write to the cache decides what is sent.
    """

    def __init__(
        self, cache: Cache, *, ttl_s: float, max_item_bytes: int = 1_000_000, quiet_s: float = QUIET_S
    ) -> None:
        """`cache` does not raise (`cache.guarded.Guarded`); it is closed with this.

        `max_item_bytes` bounds an answer with all that belongs to it; `quiet_s` is longer than any process takes an
        image for present without looking at the catalog.
        """
        self._cache = cache
        self._ttl_s = ttl_s
        self._max_item_bytes = max_item_bytes
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        # Keys of generations that must end, each with the number of the `forget` that said so last.
        self._unsent: dict[str, int] = {}
        self._numbers = itertools.count()
        self._sending = threading.Lock()

    def __repr__(self) -> str:
        return f"SharedAnswers({self._cache!r})"

    def ticket(self, ident: str) -> Ticket | None:
        """Return what `get` and `set` need; to be taken before anything about the image is looked up.

        None: there are no shared answers of this image now. The cache does not answer, or the image was forgotten
        a moment ago.
        """
        if self._unsent:
            self._send_some()
        own = _generation_key(ident)
        if own in self._unsent or _LIBRARY in self._unsent:
            return None
        library = self._generation(_LIBRARY)
        image = self._generation(own) if library else None
        return Ticket(ident=ident, generation=f"{library}.{image}") if image else None

    def get(self, ticket: Ticket, asked: Asked) -> Representation | None:
        """Return the answer that a machine shared in the ticket's generation, if it is still there."""
        key = _answer_key(ticket, asked)
        value = self._cache.get(key)
        return decode(key, value) if value is not None else None

    def set(self, ticket: Ticket, asked: Asked, representation: Representation) -> None:
        """Share an answer made of what was looked up after the ticket was taken.

        Nothing is done with what is too large, or has a file for a body.
        """
        assert representation.ident == ticket.ident
        if not isinstance(representation.body, bytes) or len(representation.body) > self._max_item_bytes:
            return
        key = _answer_key(ticket, asked)
        value = encode(key, representation)
        if len(value) <= self._max_item_bytes:
            self._cache.set(key, value, ttl_s=self._ttl_s)

    def forget(self, ident: str) -> None:
        """Let no machine find the answers of an image any more; to be called after the change is in the catalog."""
        self._end(_generation_key(ident))

    def forget_all(self) -> None:
        """Let no machine find any answer that was shared until now."""
        self._end(_LIBRARY)

    def close(self) -> None:
        """Try once more to send what was not sent, and close the cache. A second time does nothing."""
        if self._unsent:
            self._send_some()
        self._cache.close()

    def _generation(self, key: str) -> str | None:
        """Read a generation, or begin one."""
        value = self._cache.get(key)
        if value is None:
            token = secrets.token_hex(8)
            # Longer than answers live: with it go all answers of the image, also those just made.
            if self._cache.add(key, _seal(key, token.encode()), ttl_s=10 * self._ttl_s):
                return token
            value = self._cache.get(key)  # another was quicker; or the cache does not answer
            if value is None:
                return None
        token_bytes = _unseal(key, value)
        if token_bytes is None:
            self._cache.delete(key)  # unreadable, so it is of no use to anybody
            return None
        return None if token_bytes == _CLOSED else token_bytes.decode("ascii")

    def _end(self, key: str) -> None:
        number = next(self._numbers)
        with self._lock:  # noted first: from now on this process finds nothing there
            if len(self._unsent) >= _MOST_UNSENT:
                self._unsent = {_LIBRARY: number}
            self._unsent[key] = number
        self._send(key, number)

    def _send_some(self) -> None:
        """Try again to end generations; one thread at a time, and as long as it succeeds."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            with self._lock:
                some = list(itertools.islice(self._unsent.items(), _SENT_AT_ONCE))
            for key, number in some:
                if not self._send(key, number):
                    return
        finally:
            self._sending.release()

    def _send(self, key: str, number: int) -> bool:
        """End a generation; return whether the cache is known to have done so."""
        closed = _seal(key, _CLOSED)
        self._cache.set(key, closed, ttl_s=self._quiet_s)
        if self._cache.get(key) != closed:  # read back: a cache that fails says nothing
            self._cache.delete(key)  # one that is full may still do this
            return False
        with self._lock:
            if self._unsent.get(key) == number:  # else it was forgotten again meanwhile
                del self._unsent[key]
        return True


def encode(key: str, representation: Representation) -> bytes:
    """Write a representation whose body is bytes as a value to be kept under `key`, and under no other.

    The value: `lpx1`, a checksum, the header's length (4 bytes, the highest first), the header in JSON, the body.
    """
    assert isinstance(representation.body, bytes)
    header = {
        "ident": representation.ident,
        "etag": representation.etag,
        "modified": representation.modified.isoformat(),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in representation.headers],
    }
    head = json.dumps(header, separators=(",", ":")).encode("ascii")
    return _seal(key, len(head).to_bytes(4, "big"), head, representation.body)


def decode(key: str, value: bytes) -> Representation | None:
    """Read what `encode` wrote for this key; None when it is anything else."""
    payload = _unseal(key, value)
    if payload is None:
        return None
    start = 4 + int.from_bytes(payload[:4], "big")
    try:
        header = json.loads(payload[4:start])
        return Representation(
            ident=header["ident"],
            body=payload[start:],
            etag=header["etag"],
            modified=datetime.fromisoformat(header["modified"]),
            headers=tuple((name.encode("latin-1"), text.encode("latin-1")) for name, text in header["headers"]),
        )
    except (ValueError, LookupError, TypeError, AttributeError):  # intact, but not what this version writes
        return None


def _seal(key: str, *parts: bytes) -> bytes:
    return b"".join((_FORMAT, _checksum(key, *parts), *parts))


def _unseal(key: str, value: bytes) -> bytes | None:
    start = len(_FORMAT) + _DIGEST_BYTES
    payload = value[start:]
    return payload if value[:start] == _FORMAT + _checksum(key, payload) else None


def _checksum(key: str, *parts: bytes) -> bytes:
    """Return a checksum over the parts as one; with the key in it, a value is good in its own place only."""
    name = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    digest = hashlib.blake2b(name, digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _generation_key(ident: str) -> str:
    return f"{_LIBRARY}:{ident}"


def _answer_key(ticket: Ticket, asked: Asked) -> str:
    """Return the key of an answer; in JSON no two lists of texts look alike."""
    parts = [ENGINE_VERSION, ticket.ident, ticket.generation, asked.path, asked.query, asked.formats]
    digest = hashlib.blake2b(json.dumps(parts).encode("ascii"), digest_size=20).hexdigest()
    return f"answer:{ticket.ident}:{digest}"
