"""Changes by way of Redis: published on a channel."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from lazypix.cache.servers import RedisServer
from lazypix.changes.feed import CONNECT_S, FeedLost, News
from lazypix.errors import SettingsError

try:
    from redis.exceptions import RedisError

    from lazypix.cache.redis import redis_client
except ImportError:
    raise SettingsError("Changes by way of Redis need a package: pip install 'lazypix[redis]'") from None

log = logging.getLogger("lazypix")

PUBLISH_S = 1.0
"""How long whoever changes something waits for Redis."""
_MOST_AT_ONCE = 2000


def channel(server: RedisServer) -> str:
    """Return the channel's name. Channels belong to a whole server, so the database's number is in it."""
    return f"{server.prefix}{server.db}:changes"


class RedisFeed:
    """Subscribes to the channel on which `RedisPublisher` publishes.

    On the bare connection: a subscription object would connect again by itself, and nobody would know of the gap.

    Source: Redis documentation, "Pub/Sub".
    """

    def __init__(self, server: RedisServer) -> None:
        """Connect and subscribe.

        Raises:
            FeedLost: it does not succeed in time.
        """
        self._client = redis_client(server, timeout_s=CONNECT_S)
        try:
            with _translated():
                self._connection = self._client.connection_pool.get_connection()
                self._send("SUBSCRIBE", channel(server))
                confirmation = self._connection.read_response()
            if not isinstance(confirmation, list) or confirmation[0] != b"subscribe":
                raise FeedLost("it does not let itself be listened to")
        except BaseException:
            self.close()
            raise

    def ask(self) -> None:
        with _translated():
            self._send("PING")

    def wait(self, timeout_s: float) -> News:
        idents: list[str] = []
        answered = False
        with _translated():
            while len(idents) < _MOST_AT_ONCE and self._connection.can_read(timeout=timeout_s):
                timeout_s = 0
                message = self._connection.read_response()
                if message[0] == b"pong":
                    answered = True
                elif message[0] == b"message":
                    idents.append(message[2].decode("utf-8", "replace"))
        return News(idents=idents, answered=answered)

    def _send(self, *words: str) -> None:
        # A health check would read answers in between; there is none while changes are heard.
        self._connection.send_command(*words, check_health=False)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        with suppress(RedisError, OSError):
            self._client.close()


class RedisPublisher:
    """Publishes changes. Safe to use from many threads."""

    def __init__(self, server: RedisServer) -> None:
        """Connect when first used."""
        self._channel = channel(server)
        self._client = redis_client(server, timeout_s=PUBLISH_S)
        self._lock = threading.Lock()
        self._failing = False

    def announce(self, idents: Collection[str]) -> None:
        """Publish changes; a failure is logged, once until it succeeds again."""
        try:
            pipeline = self._client.pipeline(transaction=False)
            for ident in idents:
                pipeline.publish(self._channel, ident)
            pipeline.execute()
        except (RedisError, OSError) as error:
            self._note(type(error).__name__)
        else:
            self._note(None)

    def close(self) -> None:
        """Give connections back. A second time does nothing."""
        self._client.close()

    def _note(self, fault: str | None) -> None:
        with self._lock:
            news = self._failing != (fault is not None)
            self._failing = fault is not None
        if news and fault is not None:
            log.warning(
                "changes cannot be published (%s): other machines learn of them by their times to live", fault
            )
        elif news:
            log.warning("changes are published again")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, ValueError, LookupError, TypeError) as error:  # the last three: not its protocol
        raise FeedLost(type(error).__name__) from None
