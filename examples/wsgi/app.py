"""A gallery on nothing but WSGI: `gunicorn app:application`, then http://127.0.0.1:8000/."""

from collections.abc import Callable, Iterable
from typing import Any

from lazypix import LazypixError
from lazypix.contrib.opening import OneAProcess
from lazypix.markup import Tags

PAGE = """<!doctype html>
<title>Gallery</title>
<input type="file" onchange="fetch('/', {method: 'POST', body: this.files[0]}).then(() => location.reload())">
"""

library = OneAProcess()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Show the newest photos, store others, and leave images to lazypix."""
    if environ["PATH_INFO"] != "/":
        return library().wsgi(environ, start_response)
    if environ["REQUEST_METHOD"] == "POST":
        status, text = upload(environ)
    else:
        status, text = "200 OK", gallery()
    start_response(status, [("Content-Type", "text/html; charset=utf-8")])
    return [text.encode()]


def gallery() -> str:
    """Write the newest photos."""
    tags = Tags(addresses=library().addresses)
    photos = [photo.reference() for photo in library().list(limit=50)]
    return PAGE + "\n".join(tags.img(photo, "300x200,fit=cover", alt="") for photo in photos)


def upload(environ: dict[str, Any]) -> tuple[str, str]:
    """Store the request's body; what is no image is refused with a reason."""
    try:
        photo = library().add(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)))
    except LazypixError as error:
        return f"{error.status} Refused", str(error)
    return "201 Created", photo.ident
