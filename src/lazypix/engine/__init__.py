"""Decoding, transforming and encoding of images: the only room that knows libvips.

The work itself is two functions of `render`, on a path and plain values. An `Engine` decides where they run:
`threads.ThreadEngine` inside the application, `renderers.RendererEngine` in processes of their own.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from lazypix.plan import Limits, Plan, Probe


class Engine(Protocol):
    """Runs the work on images somewhere, and answers with futures. Safe to use from many threads."""

    @property
    def workers(self) -> int:
        """How many images are worked on at once."""
        ...

    def inspect(self, path: str, limits: Limits) -> Future[Probe]:
        """Probe the file at `path` and decode all of it once, to know that it is whole.

        The future raises:
            UnsupportedImage: the bytes are of no format that can be read.
            TooLarge: the header names more pixels or frames than `limits` allow; nothing was decoded.
            BrokenImage: the bytes cannot be decoded to the end.
            RendererLost: decoding took too long, too much memory, or crashed.
        """
        ...

    def render(self, path: str, plan: Plan) -> Future[bytes]:
        """Carry out `plan` on the file at `path`; the result is the encoded variant.

        The future raises:
            RenderFailed: libvips cannot make it.
            RendererLost: as `inspect`.
        """
        ...

    def close(self) -> None:
        """Stop all workers; futures that are not done are cancelled or fail."""
        ...
