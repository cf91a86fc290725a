"""A library's own applications, for servers to import."""

from __future__ import annotations

from lazypix.contrib.opening import open_configured

_library = open_configured()
asgi = _library.asgi
wsgi = _library.wsgi
