"""Stores by their address.

::

    file:///srv/images?public_url=https://img.example/files
    s3://bucket/prefix?endpoint=https://s3.example&region=eu-1&public_url=https://cdn.example
    gs://bucket/prefix
    az://container/prefix?account=name
    beansdb://host:7900,host:7900/prefix?copies=3&writes=2
    memory:

Credentials never stand in an address. They come from the environment, under the names that each service's own tools
use (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_KEY` …),
or are given as `secrets`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lazypix.errors import SettingsError
from lazypix.stores import BlobStore
from lazypix.stores.local import LocalStore
from lazypix.stores.memory import MemoryStore

ACCEPTED = "file:///<folder>, s3://<bucket>/<prefix>, gs://…, az://…, beansdb://<host>:<port>,…, memory:"

# All options that addresses can have; none of them is secret.
_OPTIONS = frozenset((
    "endpoint", "region", "virtual_hosted", "checksum", "unsigned_payload", "anonymous", "account", "emulator",
    "public_url", "cache_control", "timeout", "retries", "copies", "writes", "reads",
))  # fmt: skip

_SECRETS = {
    "s3": {"access_key": "access_key_id", "secret_key": "secret_access_key", "token": "token"},
    "gs": {"secret_key": "service_account_key"},
    "az": {"access_key": "account_name", "secret_key": "account_key"},
}
"""What the settings' names for credentials are called by each service."""


class _Address(NamedTuple):
    parts: SplitResult
    prefix: str
    options: Mapping[str, str]
    secrets: Mapping[str, str]


def open_store(address: str, *, secrets: Mapping[str, str] | None = None) -> BlobStore:
    """Open the store of an address. `secrets` are credentials: `access_key`, `secret_key` and `token`.

    Nothing is connected to yet: a service that is away now may be back when it is first needed.

    Raises:
        SettingsError: the address is malformed, holds credentials, names another kind of store or unknown options, or
            needs a package that is not installed.
        StoreFailed: a folder cannot be opened.
    """
    try:
        parts = urlsplit(address)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise SettingsError(f"The store's address is malformed; accepted: {ACCEPTED}") from None
    if parts.username is not None or parts.password is not None:
        raise SettingsError("Credentials do not belong into the store's address; they come from the environment")
    opener = _OPENERS.get(parts.scheme)
    if opener is None:
        raise SettingsError(f"store={parts.scheme[:20] or address[:20]!r} is not accepted; accepted: {ACCEPTED}")
    return opener(_Address(parts, unquote(parts.path).strip("/"), dict(pairs), secrets or {}))


def without_secrets(address: str) -> str:
    """Return an address as it may be shown: without a login, and without options that addresses do not have."""
    head, mark, query = address.partition("?")
    scheme, slashes, rest = head.partition("://")
    _, at, place = rest.rpartition("@")
    options = [option for option in query.split("&") if option.partition("=")[0] in _OPTIONS]
    shown = f"{scheme}{slashes}{'********@' if at else ''}{place}" if slashes else head
    return shown + (mark + "&".join(options) if options else "")


def _open_folder(address: _Address) -> BlobStore:
    unknown = address.options.keys() - {"public_url"}
    if unknown or address.parts.netloc not in ("", "localhost") or not address.prefix:
        raise SettingsError("A folder's address is file:///<path>, with public_url as its only option")
    return LocalStore(f"/{address.prefix}", public_url=address.options.get("public_url", ""))


def _open_memory(address: _Address) -> BlobStore:
    if address.parts.netloc or address.prefix or address.options:
        raise SettingsError("A store in memory has the address memory: and nothing more")
    return MemoryStore()


def _open_objects(address: _Address) -> BlobStore:
    from lazypix.stores.clouds import connect

    kind = address.parts.scheme
    if not address.parts.netloc:
        raise SettingsError(f"store: the bucket is missing; accepted: {kind}://<bucket>/<prefix>")
    names = _SECRETS[kind]
    unknown = address.secrets.keys() - names.keys()
    if unknown:
        raise SettingsError(f"{kind}:// has no credential {', '.join(sorted(unknown))}; accepted: {', '.join(names)}")
    secrets = {names[name]: value for name, value in address.secrets.items()}
    return connect(kind, address.parts.netloc, address.prefix, address.options, secrets)


def _open_beansdb(address: _Address) -> BlobStore:
    try:
        from lazypix.stores.beansdb import BeansdbStore
    except ImportError:
        raise SettingsError("Beansdb needs another package: pip install 'lazypix[beansdb]'") from None
    numbers: dict[str, int] = {}
    for name, text in address.options.items():
        if name not in ("copies", "writes", "reads") or not text.isdecimal():
            raise SettingsError(f"store: {name[:20]}={text[:20]!r} is not accepted; accepted: copies, writes, reads")
        numbers[name] = int(text)
    return BeansdbStore(address.parts.netloc.split(","), prefix=address.prefix, **numbers)


_OPENERS: dict[str, Callable[[_Address], BlobStore]] = {
    "file": _open_folder,
    "memory": _open_memory,
    "s3": _open_objects,
    "gs": _open_objects,
    "az": _open_objects,
    "beansdb": _open_beansdb,
}
