"""Answers shared with other machines, on the way of a request: looked for after the catalog, kept by the way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from lazypix.answers import Asked, SharedAnswers, Ticket
from lazypix.http import Representation, Request, ranked_formats

_MOST_WAITING = 64


class Sharing:
    """Finds and keeps answers in the cache that machines share. Safe to use from many threads.

    Keeping is done in the background, and left out while too much waits for it: a slow cache holds nobody up.
    """

    def __init__(self, answers: SharedAnswers) -> None:
        self._answers = answers
        self._places = threading.Semaphore(_MOST_WAITING)
        self._keeper = ThreadPoolExecutor(2, thread_name_prefix="lazypix-share")

    def ticket(self, ident: str) -> Ticket | None:
        """Return what `find` and `keep` need, taken before the catalog is looked at; None: nothing is shared now."""
        return self._answers.ticket(ident)

    def find(self, ticket: Ticket, request: Request, *, negotiated: bool) -> Representation | None:
        """Return the answer that some machine shared, or None."""
        return self._answers.get(ticket, _asked(request, negotiated=negotiated))

    def keep(self, ticket: Ticket, request: Request, whole: Representation, *, negotiated: bool) -> None:
        """Share an answer soon."""
        if not self._places.acquire(blocking=False):
            return
        try:
            self._keeper.submit(self._keep, ticket, _asked(request, negotiated=negotiated), whole)
        except RuntimeError:  # closed
            self._places.release()

    def forget(self, ident: str) -> None:
        """Let no machine find the answers of an image any more."""
        self._answers.forget(ident)

    def close(self) -> None:
        """Keep what is waiting, and close the cache. A second time does nothing."""
        self._keeper.shutdown(wait=True)
        self._answers.close()

    def _keep(self, ticket: Ticket, asked: Asked, whole: Representation) -> None:
        try:
            self._answers.set(ticket, asked, whole)
        finally:
            self._places.release()


def _asked(request: Request, *, negotiated: bool) -> Asked:
    return Asked(
        path=request.path, query=request.query, formats=ranked_formats(request.accept) if negotiated else None
    )
