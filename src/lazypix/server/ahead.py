"""Sizes that are named at upload, or later: made before anybody asks, when nothing else is to do."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from lazypix.catalog import Image
from lazypix.dialects.imageserver import Size
from lazypix.errors import LazypixError
from lazypix.library import Library

log = logging.getLogger("lazypix.server")

_LONGEST_QUEUE = 10_000


class Ahead:
    """Makes sizes that nobody waits for, one after the other, so that they never stand in the way of requests.

    What does not fit into the queue, or is left in it at the end, is made when it is asked for.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="lazypix-ahead")
        self._waiting: set[asyncio.Future[None]] = set()

    def make(self, image: Image, sizes: list[Size]) -> None:
        """Queue sizes of an image. To be called on the event loop."""
        for size in sizes:
            if len(self._waiting) >= _LONGEST_QUEUE:
                log.info("%s of %s is not made ahead: the queue is full", size.transform.text, image.ident)
                return
            task = asyncio.get_running_loop().run_in_executor(self._worker, self._make, image, size)
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    def close(self) -> None:
        """Finish the size that is being made, and forget the others."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _make(self, image: Image, size: Size) -> None:
        try:
            self._library.variant(image.ident, size.transform)
        except LazypixError as error:
            log.info("%s of %s was not made ahead: %s", size.transform.text, image.ident, error)
