"""A library for an application: opened as the settings say, once in each of its processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from lazypix.composition import begin_jobs, make_delivery, open_listening
from lazypix.library import Library
from lazypix.server.embedded import AsgiApp
from lazypix.settings import Settings, load


def open_configured(*, jobs: bool = True, **overrides: Any) -> Library:
    """Open the library that TOML file, environment and `overrides` describe; it renders in threads.

    It hears what other processes change, and its `wsgi`, `asgi` and `delivery` are as the settings say. With `jobs`
    this process sees to its jobs (replicas, callbacks, variants made in advance) as the setting `jobs` says;
    without, a server or worker of the same library has to. Close it at the end.

    A library must not go through a fork: see `OneAProcess`.

    Raises:
        SettingsError: names every setting that is wrong.
    """
    return open_with(load(overrides), jobs=jobs)


def open_with(settings: Settings, *, jobs: bool = True) -> Library:
    """Open the library that these settings describe; as `open_configured`."""
    with ExitStack() as opened:
        library = opened.enter_context(open_listening(settings))
        library.delivery = make_delivery(settings, library)
        library.asgi = AsgiApp(library.delivery, deadline_s=settings.request_deadline_s)
        library.attach(library.asgi)
        seen_to = begin_jobs(settings, library) if jobs else None
        if seen_to is not None:
            library.attach(seen_to)
        opened.pop_all()
    return library


class OneAProcess:
    """The library of an application's process: opened when first asked for, and anew in a process that was forked.

    A library has threads and connections, which a fork does not copy: a server that loads the application before it
    forks its workers (`gunicorn --preload`) gets one for each of them this way. The parent must not have made any
    variant by then: libvips hangs in a process that was forked after it worked. Safe to use from many threads.
    """

    def __init__(self, open: Callable[[], Library] = open_configured) -> None:
        self._open = open
        self._opened: Library | None = None
        self._inherited: list[Library] = []
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._after_fork)

    def __call__(self) -> Library:
        """Return the library of this process.

        Raises:
            SettingsError: it cannot be opened as the settings say.
        """
        opened = self._opened
        if opened is not None:
            return opened
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def close(self) -> None:
        """Close the library of this process, if it was opened; it is opened again when it is asked for again."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # a thread that was not copied may have held it
        if self._opened is not None:  # kept: its files and connections are the parent's, and must not be ended here
            self._inherited.append(self._opened)
        self._opened = None
