"""Writes the nginx configuration that belongs to a library and its settings: `lazypix nginx`.

nginx sends stored variants by itself, caches what else lazypix answers, and refuses writes, and all else that needs a
key, as long as there are no API keys: for lazypix, who comes through nginx comes from this machine.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lazypix.dialects.native import MOUNT
from lazypix.errors import SettingsError
from lazypix.formats import WRITABLE, by_name
from lazypix.http import SAFE
from lazypix.keys import KeyScheme
from lazypix.library import Library
from lazypix.settings import Settings

CACHE_DIR = "/var/cache/lazypix"
CACHED_S = 60
"""How long nginx' cache believes an answer before it asks again: as long may it send what was deleted."""

_OVERHEAD_BYTES = 8 * 1024 * 1024  # of a form, as `server.forms` has it
_LONGEST_NAME = 100  # longer idents are cut in names for saving, which is not for nginx to do
_WORDS = re.compile(r"[^;{}\"'\\$#\x00-\x1f\x7f]+")
_ADDRESS = re.compile(r"[A-Za-z0-9._:\[\]-]+|unix:/[A-Za-z0-9._/-]+")
_EXAMPLE_KEY = "0/origin.jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What the configuration depends on."""

    settings: Settings
    folder: Path | None
    """The folder that holds the blobs, each as `<folder>/<key>`; None when the store has no files."""
    keys: KeyScheme
    sends_files: bool
    """Whether a variant that lies in the folder may be sent without lazypix being asked."""
    server_name: str = "_"
    listen: str = "80"
    cache_dir: Path = Path(CACHE_DIR)
    upstreams: tuple[str, ...] = ()
    """Where the servers listen, each `host:port`; none: where the settings say."""

    def __post_init__(self) -> None:
        accepted = (("server_name", self.server_name, _WORDS), ("listen", self.listen, _WORDS))
        for name, value, rule in (*accepted, *(("upstream", address, _ADDRESS) for address in self.addresses)):
            if not rule.fullmatch(value):
                raise SettingsError(f"{name}={value!r} cannot be written into a configuration of nginx")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where nginx finds lazypix, each address once."""
        if self.upstreams:
            return tuple(dict.fromkeys(self.upstreams))
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)  # noqa: S104
        return (f"[{host}]:{self.settings.port}" if ":" in host else f"{host}:{self.settings.port}",)


def front_of(
    settings: Settings,
    library: Library,
    *,
    server_name: str = "_",
    listen: str = "80",
    cache_dir: Path = Path(CACHE_DIR),
    upstreams: Sequence[str] = (),
) -> Front:
    """Find out what nginx may do in front of a library.

    It sends files only if a file that is there is an image that may be had: not when deleted images stay where they
    are for a while, and not when stored images shall be redirected or their addresses be signed.

    Raises:
        SettingsError: one of the values cannot be written into a configuration.
    """
    example = library.store.local_path(_EXAMPLE_KEY)
    folder = example.parents[1] if example is not None else None
    open_to_all = settings.urls in (None, "open") and settings.stored_images == "proxy"
    return Front(
        settings=settings, folder=folder, keys=library.keys,
        sends_files=folder is not None and open_to_all and library.undelete_s == 0,
        server_name=server_name, listen=listen, cache_dir=cache_dir, upstreams=tuple(upstreams),
    )  # fmt: skip


def configuration(front: Front) -> str:
    """Return the configuration, to be included in nginx' `http` block.

    Raises:
        SettingsError: a path has characters that nginx cannot be told.
    """
    parts = [_HEAD, *_upstreams(front)]
    if not front.settings.writes_need_keys:
        told = "images$|metrics$|info/" if front.settings.urls == "signed" else "images$|metrics$"
        needs = f'"~^(?:GET|HEAD) /(?:{told})" 1;'
        parts.append(_block('map "$request_method $uri" $lazypix_needs_key', needs, *_METHODS))
    if front.sends_files:
        parts += [_file_of(front), _NAME_FOR_SAVING]
    if _caches(front):
        zone = "levels=1:2 keys_zone=lazypix:10m max_size=10g inactive=24h use_temp_path=off"
        parts.append(f"proxy_cache_path {_quoted(front.cache_dir.absolute())} {zone};")
    parts.append(_block("server", *_server(front)))
    return "\n\n".join(parts) + "\n"


def _upstreams(front: Front) -> Iterator[str]:
    """Write where lazypix is.

    Of several servers one that failed rests, but is tried all the same before nobody is: were it left out, those who
    come while the servers are restarted one after the other would find none.
    """
    if len(front.addresses) == 1:
        yield _block("upstream lazypix", f"server {front.addresses[0]};", "keepalive 32;")
        return
    servers = [f"server {address} max_fails=2 fail_timeout=5s;" for address in front.addresses]
    servers += ["# Before nobody answers, those who rest are tried."]
    servers += [f"server {address} backup max_fails=0;" for address in front.addresses]
    yield _block("upstream lazypix", "zone lazypix_reads 128k;", *servers, "keepalive 32;")
    yield f"{_WRITES_AFRESH}\n" + _block("upstream lazypix_writes", "zone lazypix_writes 128k;", *servers)
    yield _block("map $request_method $lazypix_pool", "GET lazypix;", "HEAD lazypix;", "default lazypix_writes;")


def _pass(front: Front) -> str:
    return "proxy_pass http://lazypix;" if len(front.addresses) == 1 else "proxy_pass http://$lazypix_pool;"


def _server(front: Front) -> Iterator[str]:
    settings = front.settings
    yield f"listen {front.listen};\nserver_name {front.server_name};"
    yield (
        "\n# Enough for a form; how large an image may be is for lazypix to tell.\n"
        f"client_max_body_size {_form_mib(settings)}m;"
    )
    yield f"\n{_PROXY}\nproxy_read_timeout {math.ceil(2 * settings.request_deadline_s) + 60}s;"
    yield "\n" + (_WRITES_NEED_KEYS if settings.writes_need_keys else _WRITES_REFUSED)
    if settings.urls is None:
        yield "\n# The setting `urls` is not chosen yet; through nginx everybody may ask for any size."
    if len(front.addresses) > 1:
        yield "\n" + _NEXT
    yield "\n" + _block("location /", _pass(front))
    yield from _images(front)
    if settings.accel_redirect and front.folder is not None:
        yield "\n" + _block(f"location {settings.accel_redirect}", *_handed_over(front.folder))
        text = "The image is not in the store any more; ask again"
        yield _error("gone", 503, text, 'if ($upstream_http_x_accel_redirect = "") {\n    return 404;\n}')
    yield "\nerror_page 413 @lazypix_too_large;\nerror_page 502 504 @lazypix_away;"
    yield _error("too_large", 413, f"The request is over the limit of {settings.max_bytes} bytes for an image")
    yield _error("away", 502, "The image server does not answer; try again later")
    if not settings.writes_need_keys:
        yield "\nerror_page 403 @lazypix_refused;"
        yield _error("refused", 403, "This needs an API key, and the server has no API keys")


def _images(front: Front) -> Iterator[str]:
    proxied = (_pass(front), *(_CACHE.splitlines() if _caches(front) else ()))
    if not front.sends_files:
        yield "\n" + _block(f"location {MOUNT}", *proxied)
        return
    assert front.folder is not None
    names = [by_name(name) for name in WRITABLE]
    types = _block("types", *(f"{found.mime} {found.extension};" for found in names))
    yield "\n# Sent with lazypix' headers; ETag and Last-Modified are those of the file."
    yield _block(
        f"location {MOUNT}",
        f"root {_quoted(front.folder)};",
        "try_files $lazypix_file @lazypix_images;",
        types,
        f'add_header Cache-Control "public, max-age={front.settings.max_age_s}";',
        "add_header Content-Disposition 'inline; filename=\"$lazypix_name\"';",
        *_safe(),
        'add_header Server-Timing "nginx;desc=file";',
    )
    yield "\n" + _block("location @lazypix_images", *proxied)


def _file_of(front: Front) -> str:
    """Return the map from addresses to files, as `KeyScheme.variant` has them.

    Only what is spelled exactly as its file, without a query: what else may mean the same is for lazypix to say.
    The words `origin` and `full` are no sizes here: the one is no transform, and the other may mean the original.
    """
    shard = front.keys.shard
    ident = f"(?<lazypix_ident>[A-Za-z0-9_-]{{1,{_LONGEST_NAME}}})"
    if shard:
        end = f"(?<lazypix_shard>[A-Za-z0-9_-]{{{shard}}})"
        ident = f"(?<lazypix_ident>[A-Za-z0-9_-]{{0,{_LONGEST_NAME - shard}}}{end})"
    option = "[a-z]+=[a-z0-9.:-]+"
    stem = f"(?<lazypix_stem>(?:[0-9]*x[0-9]*|{option})(?:,{option})*)"
    extension = f"(?<lazypix_ext>{'|'.join(by_name(name).extension for name in WRITABLE)})"
    address = f"~^(?:GET|HEAD) {MOUNT}{stem}/{ident}\\.{extension}$"
    folder = f"/{_quoted(front.keys.prefix)[1:-1]}" + ("$lazypix_shard/" if shard else "")
    file = f"{folder}$lazypix_ident/$lazypix_stem.$lazypix_ext"
    return f"{_FILES}\n" + _block(
        'map "$request_method $request_uri" $lazypix_file', 'default "/.none";', f'"{address}" "{file}";'
    )


def _handed_over(folder: Path) -> Iterator[str]:
    """Write the location of `X-Accel-Redirect`; nginx keeps of lazypix' headers only some by itself."""
    yield "internal;"
    yield f'alias {_quoted(folder)[:-1]}/";'
    yield "# Conditions were looked at by lazypix, whose ETag this is; ranges are nginx'."
    yield "etag off;\nif_modified_since off;"
    for name in ("ETag", "Last-Modified", "Vary", "Server-Timing"):
        yield f"add_header {name} $upstream_http_{name.lower().replace('-', '_')};"
    yield from _safe()
    yield "# Gone since lazypix looked, or not readable for nginx."
    yield "error_page 403 404 500 = @lazypix_gone;"


def _caches(front: Front) -> bool:
    """Whether nginx caches: not where it is handed files. It would keep conditions from lazypix, and no file."""
    return not front.settings.accel_redirect


def _error(name: str, status: int, text: str, *first: str) -> str:
    """Write a location that answers as lazypix does, after the lines `first`."""
    body = f'{{"status": "error", "content": "{text}"}}'
    return "\n" + _block(
        f"location @lazypix_{name}",
        "default_type application/json;",
        'add_header Cache-Control "no-store" always;',
        *_safe(" always"),
        *first,
        f"return {status} '{body}';",
    )


def _safe(always: str = "") -> Iterator[str]:
    for name, value in SAFE:
        yield f'add_header {name.decode().title()} "{value.decode()}"{always};'


def _form_mib(settings: Settings) -> int:
    """Return how large a request may be: a form may need twice an image's bytes to say them."""
    return math.ceil((2 * settings.max_bytes + _OVERHEAD_BYTES) / (1024 * 1024))


def _block(head: str, *lines: str) -> str:
    return f"{head} {{\n{textwrap.indent(chr(10).join(lines), '    ')}\n}}"


def _quoted(path: Path | str) -> str:
    r"""Return a path as nginx reads it. A `$` would be a variable, for which there is no escape."""
    text = str(path)
    if "$" in text or not text.isprintable():
        raise SettingsError(f"{text!r} cannot be written into a configuration of nginx; use a path without $")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_HEAD = """\
# lazypix behind nginx, as `lazypix nginx` wrote it from the settings in force; write it anew when they change.
# To be included in nginx' http block, for instance as /etc/nginx/conf.d/lazypix.conf."""

_METHODS = ('"~^(?:GET|HEAD|OPTIONS) " 0;', "default 1;")

_WRITES_AFRESH = """\
# Writes get a connection each: a server may hang up on one that was kept just when an upload is sent on it, and what
# was sent in part is not sent again."""

_NEXT = """\
# The next server is asked when one does not answer at all. An upload is not repeated once a byte of it was sent. What
# a server answers, it answers for all: a 503 tells that there is too much to do, which the next one need not get too.
proxy_next_upstream error timeout;
proxy_connect_timeout 2s;"""

_FILES = """\
# The file of a stored variant, by its address. nginx sends it alone while it is there; with an image its folder goes.
# nginx' user must be allowed to read the files; where it is not, lazypix sends them."""

_NAME_FOR_SAVING = """\
map $lazypix_stem $lazypix_name {
    default "$lazypix_ident.$lazypix_ext";
    "~^(?<lazypix_size>[0-9]*x[0-9]*)" "$lazypix_ident-$lazypix_size.$lazypix_ext";
}"""

_PROXY = """\
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_set_header Host $http_host;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Host $http_host;
proxy_set_header X-Forwarded-Proto $scheme;
# Uploads go straight through: lazypix receives them piece by piece, and counts.
proxy_request_buffering off;"""

_WRITES_NEED_KEYS = "# Writes need a key, which lazypix looks at: Authorization: Bearer <key>."

_WRITES_REFUSED = """\
# There are no `api_keys`, so lazypix lets this machine write without; and for lazypix everybody who comes through
# nginx comes from this machine. So nothing is written through nginx, nor are all images listed. Set `api_keys`, or
# `keys_required`, and write this file anew.
if ($lazypix_needs_key) {
    return 403;
}"""

_CACHE = f"""\
proxy_cache lazypix;
proxy_cache_key $request_uri;
# An answer is believed for this long, then asked for anew (mostly 304, and the bytes are kept): as long may an image
# be sent that was deleted.
proxy_ignore_headers Cache-Control;
proxy_cache_valid 200 {CACHED_S}s;
proxy_cache_valid 404 10s;
proxy_cache_revalidate on;
# Of many who ask for something new at once, one asks lazypix.
proxy_cache_lock on;
proxy_cache_lock_timeout 30s;
proxy_cache_lock_age 30s;
# While lazypix does not answer, what is there is sent on.
proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
proxy_hide_header Server-Timing;
add_header Server-Timing "nginx;desc=$upstream_cache_status";"""
