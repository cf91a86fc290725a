"""Images that cost renderers their lives: which are to blame, and which are not rendered any more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from lazypix.cache.memory import MemoryCache
from lazypix.catalog import Catalog, Image
from lazypix.engine import Engine
from lazypix.errors import LazypixError, Quarantined, RendererLost
from lazypix.plan import Limits, make_plan
from lazypix.transform import Transform

log = logging.getLogger("lazypix")

STRIKES = 2
"""How many renderers an image may cost before it is quarantined."""
_LOST_TTL_S = 60.0
_KNOWN_VARIANTS = 20_000


class Quarantine:
    """Keeps the renderers from what has cost some of them.

    A variant to which one was lost is refused for a minute. Whether its image is to blame is found out with the
    smallest variant there is: whoever asks for a huge one, or asks while the machine is busy, must not have a good
    image quarantined.
    """

    def __init__(self, catalog: Catalog, engine: Engine, limits: Limits) -> None:
        self._catalog = catalog
        self._engine = engine
        self._limits = limits
        self._lost: MemoryCache[RendererLost] = MemoryCache(max_bytes=_KNOWN_VARIANTS, ttl_s=_LOST_TTL_S)

    def check(self, image: Image, key: str) -> None:
        """Refuse what must not be rendered (again).

        Raises:
            Quarantined: the image.
            RendererLost: the variant under this key, a moment ago.
        """
        if image.strikes >= STRIKES:
            raise Quarantined(
                f"{image.ident} cost {image.strikes} renderers (killed, or over the deadline); it is not rendered"
            )
        lost = self._lost.get(key)
        if lost is not None:
            raise type(lost)(str(lost))  # a fresh one: the same raised again and again would grow its traceback

    def remember(self, key: str, lost: RendererLost) -> None:
        """Note that a renderer was lost to the variant under this key."""
        self._lost.set(key, lost, 1)

    def test(
        self,
        image: Image,
        original: Callable[[Image], AbstractContextManager[Path]],
        changed: Callable[[str], None],
    ) -> None:
        """Give the image a strike if even its smallest variant costs a renderer; then call `changed` with its ident.

        `original` gives the original's file while it is used.
        """
        smallest = make_plan(Transform(width=16, height=16, format="jpg"), image.probe, self._limits)
        try:
            with original(image) as path:
                self._engine.render(str(path), smallest).result()
        except RendererLost:
            self._catalog.health.strike(image.ident)
            changed(image.ident)
        except LazypixError as error:
            log.warning("%s could not be tested after a renderer was lost to it: %s", image.ident, error)
