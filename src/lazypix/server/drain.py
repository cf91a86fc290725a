"""A uvicorn server that ends gently: nothing that is being answered is cut, within a limit, and the exit code tells.

::

    SIGTERM -> /readyz is 503, answers close their connections    for `delay_s`
            -> no new connections; what is under way is finished   for `limit_s`
            -> what is left is cut: 503 where no answer has begun  exit code 1
            -> library and renderers are closed                    exit code 0
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import uvicorn

from lazypix.server.protocol import ImageProtocol

log = logging.getLogger("lazypix.server")

RETIRE = signal.SIGUSR1
"""What a supervisor sends to a worker that another one has replaced: it drains, and the machine stays ready."""
CLOSE_S = 5.0
"""For closing the library after the limit; then the process ends without."""
_LOOK_S = 0.05
_CUT_S = 1.0
_REFUSED_S = 2.0  # for clients that were refused to read why
_MOST_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How a server process ends."""

    delay_s: float
    """Seconds for which it says that it is not ready, and goes on answering."""
    limit_s: float
    """Seconds for finishing what is under way after that."""

    @property
    def whole_s(self) -> float:
        """Seconds after which the process has ended in any case."""
        return self.delay_s + self.limit_s + CLOSE_S


class DrainingApp(Protocol):
    """What the server wants of an application besides ASGI."""

    def drain(self, *, ready: bool) -> None:
        """Have every answer close its connection from now on; `ready` is what load balancers are told."""
        ...


class DrainingServer(uvicorn.Server):
    """One server process. Alone, a second signal ends it at once; under a supervisor, only that one does so."""

    def __init__(self, config: uvicorn.Config, drain: Drain, *, supervised: bool) -> None:
        super().__init__(config)
        self.exit_code = 0
        self._drain = drain
        self._supervised = supervised
        self._retires = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals until the process ends: a late one must not change its exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, RETIRE):
            signal.signal(number, self.handle_exit)
        if self._supervised:  # a terminal sends these to all processes of a group
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.should_exit and not self._supervised:
            os.write(2, b"ended at once by a second signal\n")
            os._exit(1)  # renderers follow; what was not acknowledged is swept at the next start
        self._retires = sig == RETIRE and not self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain; see the module."""
        _end_after(self._drain.whole_s)
        app: DrainingApp = self.config.loaded_app
        app.drain(ready=self._retires)
        if self._retires:  # the other workers listen on the same socket
            self._stop_listening(sockets or [])
        loop = asyncio.get_running_loop()
        await self._wait(lambda: False, loop.time() + self._drain.delay_s)
        if not self._retires:
            await self._take_last(sockets or [])
        await asyncio.sleep(_LOOK_S)  # what has arrived already is read before idle connections are closed
        for connection in self._connections():
            connection.shutdown()
        if not await self._wait(self._all_answered, loop.time() + self._drain.limit_s):
            await self._cut()
        await self._wait(lambda: not self.server_state.connections, loop.time() + _REFUSED_S)
        for connection in self._connections():
            connection.transport.abort()
        await self.lifespan.shutdown()

    async def _take_last(self, sockets: list[socket.socket]) -> None:
        """Stop listening; connections that clients hold for made are taken, since closing would reset them."""
        taken = []
        for listening in sockets:
            listening.setblocking(False)
            while (connection := _accept(listening)) is not None:
                taken.append(connection)
        self._stop_listening(sockets)
        loop = asyncio.get_running_loop()
        for connection in taken:
            await loop.connect_accepted_socket(self._new_protocol, connection)

    def _stop_listening(self, sockets: list[socket.socket]) -> None:
        for server in self.servers:
            server.close()
        for listening in sockets:
            listening.close()

    def _new_protocol(self) -> ImageProtocol:
        return ImageProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _connections(self) -> list[ImageProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, ImageProtocol)]

    def _all_answered(self) -> bool:
        return not self.server_state.tasks and all(each.is_lingering for each in self._connections())

    async def _cut(self) -> None:
        """Give up what is still under way, say what that is, and answer where no answer has begun."""
        open_still = [each for each in self._connections() if each.scope is not None and not each.is_lingering]
        cut = [f"{each.scope['method']} {each.scope['path']}" for each in open_still]
        told = ", ".join(cut[:_MOST_TOLD]) + (", …" if len(cut) > _MOST_TOLD else "")
        log.error("stopping: cut %d requests after %g seconds: %s", len(cut), self._drain.limit_s, told)
        self.exit_code = 1
        for task in list(self.server_state.tasks):
            task.cancel()
        await self._wait(lambda: not self.server_state.tasks, asyncio.get_running_loop().time() + _CUT_S)

    async def _wait(self, done: Callable[[], bool], until: float) -> bool:
        """Wait until `done`, but not for longer than `until` (the loop's clock); tell which it was."""
        loop = asyncio.get_running_loop()
        while not done():
            if loop.time() >= until:
                return False
            await self.on_tick(0)  # the header Date goes on
            await asyncio.sleep(_LOOK_S)
        return True


def _accept(listening: socket.socket) -> socket.socket | None:
    try:
        return listening.accept()[0]
    except OSError:  # nobody waits (any more)
        return None


def _end_after(seconds: float) -> None:
    """End the process when it has not ended by itself: a store or a codec may hang."""

    def end() -> None:
        log.error("stopping: not everything ended within %g seconds; ended without", seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
