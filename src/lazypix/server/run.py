"""Starts the server: uvicorn, its worker processes, and what it tells the person who started it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import partial

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from lazypix.composition import check_jobs, make_delivery, open_library
from lazypix.engine.idle import IdleEngine
from lazypix.engine.processes import bound_allocator_of_children, bound_own_allocator, follow_parent
from lazypix.errors import LazypixError, SettingsError
from lazypix.server.app import create
from lazypix.server.protocol import ImageProtocol
from lazypix.settings import Settings

log = logging.getLogger("lazypix.server")

_BACKLOG = 1024
_SHUTDOWN_S = 20
_KEEP_ALIVE_S = 75


def serve(settings: Settings, listening: Callable[[int], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT; what is being answered then is finished within 20 seconds.

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
    supervisor = os.getpid() if settings.workers > 1 else None
    config = uvicorn.Config(
        partial(_worker, settings, supervisor),
        factory=True,
        host=settings.host,
        port=settings.port,
        http=ImageProtocol,  # httptools reads the raw "<" of ImageServer's addresses; stricter parsers refuse it
        loop="uvloop",
        ws="none",
        lifespan="on",
        workers=settings.workers,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        access_log=settings.access_log,
        log_config=None,
        log_level="info" if settings.access_log else "warning",
        server_header=False,
        proxy_headers=False,
    )
    try:
        bound = config.bind_socket()
    except SystemExit:  # uvicorn has logged the reason
        raise SettingsError(f"Cannot listen on {settings.host}:{settings.port}; see the line above") from None
    listening(bound.getsockname()[1])
    if settings.workers == 1:
        uvicorn.Server(config).run([bound])
    else:
        Multiprocess(config, sockets=[bound]).run()


def _worker(settings: Settings, supervisor: int | None) -> ASGIApp:
    """Make the application inside of one server process."""
    if supervisor is not None:
        _set_up_logging(settings)
        threading.Thread(target=follow_parent, args=(supervisor,), daemon=True).start()
    return create(settings)


def _set_up_logging(settings: Settings) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every malformed form
    logging.getLogger("lazypix").setLevel(settings.log_level.upper())
