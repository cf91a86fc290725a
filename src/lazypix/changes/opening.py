"""From a setting to changes."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial

from lazypix.cache.opening import redis_server
from lazypix.catalog import Catalog
from lazypix.changes import Changes, NoChanges
from lazypix.changes.feed import Feed
from lazypix.changes.listening import Listening
from lazypix.errors import LazypixError

log = logging.getLogger("lazypix")


def changes_of(catalog: Catalog) -> Changes:
    """Return the catalog's own way to tell of changes. Nothing is connected to yet."""
    return Listening(partial(_feed_of, catalog), partial(_announce, catalog), hears_catalog=True)


def open_changes(setting: str) -> Changes:
    """Return another way to tell of changes: by Redis (its URL), or not at all (`none`). Nothing is connected to yet.

    Raises:
        SettingsError: the setting is none of those accepted, or a package is missing.
    """
    if setting == "none":
        return NoChanges()
    server = redis_server(setting, of="changes")
    from lazypix.changes.redis import RedisFeed, RedisPublisher  # needs a package that only those have who use it

    publisher = RedisPublisher(server)
    return Listening(partial(RedisFeed, server), publisher.announce, hears_catalog=False, at_end=publisher.close)


def _feed_of(catalog: Catalog) -> Feed:
    file = catalog.file
    if file is not None:
        from lazypix.changes.sqlite import SqliteFeed

        return SqliteFeed(file)
    from lazypix.changes.postgresql import PostgresqlFeed  # needs a package that only those have who use it

    return PostgresqlFeed(catalog.connection_arguments())


def _announce(catalog: Catalog, idents: Collection[str]) -> None:
    try:
        catalog.announce(idents)
    except LazypixError as error:
        log.warning("a change was not announced, other machines learn of it by their times to live: %s", error)
