"""Starts the server: uvicorn, its worker processes, and what it tells the person who started it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection

import uvicorn

from lazypix.composition import check_jobs, make_delivery, open_library
from lazypix.engine.idle import IdleEngine
from lazypix.engine.processes import bound_allocator_of_children, bound_own_allocator, follow_parent
from lazypix.errors import LazypixError, SettingsError
from lazypix.server.app import create
from lazypix.server.drain import Drain, DrainingServer
from lazypix.server.protocol import ImageProtocol
from lazypix.server.supervisor import Supervisor, Worker
from lazypix.settings import Settings

log = logging.getLogger("lazypix.server")

_BACKLOG = 1024
_KEEP_ALIVE_S = 75
_BEAT_S = 1
_SIGNED = re.compile(r"([?&][^=&]*=[^&]*\.)[A-Za-z0-9_-]{43}(?=&|$)")  # a parameter that ends in a MAC


def serve(settings: Settings, listening: Callable[[int], None] = lambda _: None) -> int:
    """Serve until SIGTERM or SIGINT, then drain; return the exit code: 1 if something was cut.

    `listening` is called with the port as soon as there is one.

    Raises:
        SettingsError: the address cannot be listened on, or the store cannot be answered from as the settings say.
        StoreFailed, OSError: the library cannot be opened.
    """
    _set_up_logging(settings)
    # Once before any worker does: a supervisor would start them again and again.
    check_jobs(settings)
    with open_library(settings, IdleEngine()) as library:
        make_delivery(settings, library)
        try:
            library.check()
        except LazypixError as error:  # it may be back soon, and nobody has to start us again then
            log.warning("starting, although not everything is there yet: %s", error)
    bound_own_allocator()
    bound_allocator_of_children()
    config = _config(settings)
    try:
        bound = config.bind_socket()
    except SystemExit:  # uvicorn has logged the reason
        raise SettingsError(f"Cannot listen on {settings.host}:{settings.port}; see the line above") from None
    listening(bound.getsockname()[1])
    if settings.workers == 1:
        server = DrainingServer(config, _drain(settings), supervised=False)
        server.run([bound])
        return server.exit_code
    start = partial(_start_worker, settings, bound)
    return Supervisor(start, settings.workers, bound, _drain(settings)).run()


def _config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        partial(create, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        http=ImageProtocol,  # httptools reads the raw "<" of ImageServer's addresses; stricter parsers refuse it
        loop="uvloop",
        ws="none",
        lifespan="on",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        access_log=settings.access_log,
        log_config=None,
        log_level="info" if settings.access_log else "warning",
        server_header=False,
        proxy_headers=False,
    )


def _drain(settings: Settings) -> Drain:
    return Drain(delay_s=settings.drain_delay_s, limit_s=settings.drain_s)


def _start_worker(settings: Settings, bound: socket.socket) -> Worker:
    # Spawned, never forked: see decision 4.
    spawn = multiprocessing.get_context("spawn")
    heard, beats = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(settings, bound, beats, os.getpid()))
    process.start()
    beats.close()  # the worker's own: its end tells that it ended
    return Worker(process=process, beats=heard)


def _work(settings: Settings, bound: socket.socket, beats: Connection, supervisor: int) -> None:
    """Be one server process under a supervisor."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _set_up_logging(settings)
    threading.Thread(target=follow_parent, args=(supervisor,), daemon=True).start()

    async def beat() -> None:  # on the event loop, so that one which hangs is silent
        with suppress(OSError):
            beats.send_bytes(b".")

    config = _config(settings)
    config.callback_notify, config.timeout_notify = beat, _BEAT_S
    server = DrainingServer(config, _drain(settings), supervised=True)
    server.run([bound])
    sys.exit(server.exit_code)


def _set_up_logging(settings: Settings) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every malformed form
    logging.getLogger("lazypix").setLevel(settings.log_level.upper())
    logging.getLogger("uvicorn.access").addFilter(_without_signatures)


def _without_signatures(record: logging.LogRecord) -> bool:
    """Take out of a line of the access log what would make links and upload tickets of it that are good still."""
    if isinstance(record.args, tuple):
        record.args = tuple(_SIGNED.sub(r"\1...", each) if isinstance(each, str) else each for each in record.args)
    return True
