"""Images answered in an event loop: the same for our own server and for applications."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from starlette.types import Receive

from lazypix.delivery import Delivery, Making
from lazypix.dialects.remote import REMOTE
from lazypix.errors import Busy, LazypixError
from lazypix.faces import BROKEN
from lazypix.http import Answer, Request, error_answer

log = logging.getLogger("lazypix.server")

_COMPARERS = 4
_FETCHERS = 16


class Images:
    """Answers requests for images without ever blocking the event loop."""

    def __init__(self, delivery: Delivery, deadline_s: float, readers: int) -> None:
        """`deadline_s` bounds the look into store and catalog, and then the wait for a variant."""
        self._delivery = delivery
        self._deadline_s = deadline_s
        # Reading the store has threads of its own: requests that wait for a renderer wait without one.
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="lazypix-read")
        # A client that has the image mostly costs no read: it is told so also while all readers wait for the store.
        self._comparers = ThreadPoolExecutor(_COMPARERS, thread_name_prefix="lazypix-compare")
        # Other servers may take their time: who waits for one of them shall not hold up the images that are here.
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="lazypix-fetch")

    async def answer(self, request: Request, receive: Receive) -> Answer | None:
        """Answer from store and catalog, or wait for the variant to be made; None when the client went away."""
        try:
            begun = await asyncio.wait_for(self._begun(request), self._deadline_s)
            return begun if isinstance(begun, Answer) else await self._made(begun, receive)
        except TimeoutError:
            log.warning("%s was not looked up within %g seconds", request.path, self._deadline_s)
            return error_answer(Busy("Store or catalog do not answer; ask again later"))
        except LazypixError as error:
            if error.status >= 500:
                log.warning("%s was answered with %d: %s", request.path, error.status, error)
            return error_answer(error)
        except Exception:
            log.exception("an image could not be answered")
            return BROKEN

    def _begun(self, request: Request) -> asyncio.Future[Answer | Making]:
        threads = self._readers if request.if_none_match is None else self._comparers
        if request.path.startswith(REMOTE):
            threads = self._fetchers
        return asyncio.get_running_loop().run_in_executor(threads, self._delivery.begin, request)

    async def _made(self, making: Making, receive: Receive) -> Answer | None:
        """Wait for the variant, for as long as the client and the deadline do."""
        variant = asyncio.wrap_future(making.future)
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            # Not cancelled at the deadline: the work is shared with others who wait for it.
            await asyncio.wait((variant, gone), timeout=self._deadline_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if variant.done():
            return making.finish(variant.result())
        variant.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody looks at it any more
        making.leave()
        if gone.done() and not gone.cancelled():
            return None
        raise Busy(f"The image was not made within {self._deadline_s:g} seconds; ask again later")

    def close(self) -> None:
        """Wait for what is being read; what waits for a thread is given up."""
        for threads in (self._readers, self._comparers, self._fetchers):
            threads.shutdown(wait=True, cancel_futures=True)


async def _disconnect(receive: Receive) -> None:
    """Wait until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
