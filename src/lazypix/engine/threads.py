"""The engine of library mode: threads of the application's own process."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor

from lazypix.engine import render as work
from lazypix.plan import Limits, Plan, Probe


class ThreadEngine:
    """Runs the work in `threads` threads (default: one a core); libvips releases the GIL.

    For images of a source that is trusted as far as the application trusts its own process: there is no deadline
    and no memory limit here. Servers use `renderers.RendererEngine`.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._workers = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="lazypix-render")

    @property
    def workers(self) -> int:
        return self._workers

    def inspect(self, path: str, limits: Limits) -> Future[Probe]:
        return self._pool.submit(work.inspect, path, limits)

    def render(self, path: str, plan: Plan) -> Future[bytes]:
        return self._pool.submit(work.render, path, plan)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
