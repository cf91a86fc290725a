"""Flask: an extension that opens the library, serves its images, and gives templates what they need."""

from __future__ import annotations

from typing import Any

try:
    import click
    from flask import Blueprint, Flask, Response, current_app, request
    from werkzeug.datastructures import FileStorage
    from werkzeug.routing import BaseConverter
except ImportError as error:
    raise ImportError('Flask is not installed: pip install "lazypix[flask]"') from error

from lazypix.catalog import Image
from lazypix.contrib import commands
from lazypix.contrib.jinja import install
from lazypix.contrib.opening import OneAProcess, open_with
from lazypix.dialects.native import MOUNT
from lazypix.dialects.remote import SERVED
from lazypix.errors import LazypixError
from lazypix.http import Answer, error_answer
from lazypix.library import Library
from lazypix.markup import Tags
from lazypix.settings import load
from lazypix.wsgi import WsgiApp, opened, text_headers

NAME = "lazypix"
_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


class Lazypix:
    """The extension. Settings are `LAZYPIX_*` in the application's configuration, or a dictionary `LAZYPIX` there.

    They are lazypix' own, and win over environment and TOML file; `LAZYPIX_URL_PREFIX` is the path before `/image/`,
    and before `/remote/`, which is served where `remote_hosts` is set, and else is the application's own.
    The library is opened when it is first needed, in each process its own.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set an application up: routes, templates' helpers, errors as JSON, and the command `flask lazypix`.

        Raises:
            SettingsError: names every setting that is wrong.
        """
        values, prefix = _configured(app)
        settings = load(values)
        if not settings.base_url:
            values["base_url"] = prefix
            settings = load(values)
        library = OneAProcess(lambda: open_with(settings))
        app.extensions[NAME] = library
        app.url_map.converters["lazypix_rest"] = _Rest
        places = SERVED if settings.remote_hosts else (MOUNT,)
        app.register_blueprint(_blueprint(library, prefix, places, values))
        app.register_error_handler(LazypixError, lambda error: AnswerResponse(error_answer(error)))
        install(app.jinja_env, lambda: Tags(addresses=library().addresses))

    @property
    def library(self) -> Library:
        """The library of the current application, in this process."""
        found: OneAProcess = current_app.extensions[NAME]
        return found()

    def add(self, upload: FileStorage, **options: Any) -> Image:
        """Store a file of `request.files`; `options` and errors are those of `Library.add`."""
        return self.library.add(upload.stream, **{"filename": upload.filename or None, **options})  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the current application's library, in this process."""
        current_app.extensions[NAME].close()


class AnswerResponse(Response):
    """Sends an `Answer` as it is; `after_request` functions may add headers."""

    def __init__(self, answer: Answer, *, head: bool = False) -> None:
        answer, body = opened(answer, head=head)
        super().__init__(body, answer.status, text_headers(answer), direct_passthrough=True)
        if not any(name == b"content-type" for name, _ in answer.headers):
            self.headers.pop("content-type")

    def get_wsgi_headers(self, environ: Any) -> Any:  # noqa: ARG002
        """Return the headers; Werkzeug would take validators off a 304."""
        return self.headers


class _Rest(BaseConverter):
    """All that follows, slashes at its beginning too."""

    regex = ".*"
    part_isolating = False


def _configured(app: Flask) -> tuple[dict[str, Any], str]:
    mark = f"{NAME.upper()}_"
    single = {name.removeprefix(mark).lower(): value for name, value in app.config.items() if name.startswith(mark)}
    values = {**app.config.get(NAME.upper(), {}), **single}
    return values, str(values.pop("url_prefix", "")).rstrip("/")


def _blueprint(library: OneAProcess, prefix: str, places: tuple[str, ...], values: dict[str, Any]) -> Blueprint:
    blueprint = Blueprint(NAME, __name__, url_prefix=prefix or None, cli_group=None)

    def image(path: str) -> Response:  # noqa: ARG001  # the path as it was received is what counts
        answer = WsgiApp(library().delivery, mount=prefix).answer(request.environ)
        return AnswerResponse(answer, head=request.method == "HEAD")

    for place in places:  # one endpoint: who guards the images guards those of other servers
        blueprint.add_url_rule(
            f"{place}<lazypix_rest:path>", view_func=image, methods=_METHODS, provide_automatic_options=False,
            merge_slashes=False,
        )  # fmt: skip
    settings = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}

    @blueprint.cli.command(NAME, context_settings=settings, help="lazypix' own commands; `--help` lists them.")
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        commands.run(arguments, values, name=f"flask {NAME}")

    return blueprint
