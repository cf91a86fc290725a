"""What settings must be like, besides their types: functions that pydantic calls, and that raise ValueError."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from pydantic import SecretStr

from lazypix.dialects.remote import SERVED
from lazypix.errors import LazypixError
from lazypix.outbound.rules import Rules, split_url
from lazypix.plan import Limits, check_size
from lazypix.presets import Presets
from lazypix.signing.links import KeyRing
from lazypix.signing.messages import secret_bytes

_SHORTEST_KEY = 16
_ACCEL_PREFIX = re.compile(r"/([A-Za-z0-9_-][A-Za-z0-9._-]*/)+")
_BROKERS = ("redis", "rediss", "amqp", "amqps")


def check_api_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Refuse keys that are too short."""
    if any(len(key.get_secret_value().strip()) < _SHORTEST_KEY for key in keys):
        raise ValueError(f"every key must have at least {_SHORTEST_KEY} characters")
    return keys


def secrets_of(secret: SecretStr | None) -> list[bytes]:
    """Return what signs: the secrets in a setting, separated by spaces."""
    return [secret_bytes(text) for text in secret.get_secret_value().split()] if secret else []


def check_secret(secret: SecretStr | None) -> SecretStr | None:
    """Refuse secrets that sign badly."""
    secrets_of(secret)
    return secret


def ring_of(keys: Iterable[SecretStr]) -> KeyRing:
    """Return the keys of links, or of upload tickets.

    Raises:
        ValueError: one is malformed, or two have one id.
    """
    return KeyRing.of(key.get_secret_value().strip() for key in keys)


def check_ring(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Refuse keys that sign badly."""
    ring_of(keys)
    return keys


def check_presets(texts: dict[str, str]) -> dict[str, str]:
    """Refuse names and transforms that are wrong."""
    try:
        Presets.read(texts)
    except LazypixError as error:
        raise ValueError(str(error)) from None
    return texts


def check_purge_url(url: SecretStr | None) -> SecretStr | None:
    """Refuse what is no URL."""
    if url is not None:
        parts = split_url(url.get_secret_value())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be a URL, http://… or https://…")
    return url


def check_prefix(value: str) -> str:
    """Refuse what is no prefix of keys."""
    if value and (not value.endswith("/") or any(not s or s.startswith(".") for s in value[:-1].split("/"))):
        raise ValueError("must be empty, or folders that end in a slash, such as img/")
    return value


def check_allowed(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is neither a host nor a network."""
    Rules.of(texts)
    return texts


def check_accel_redirect(value: str) -> str:
    """Refuse what nginx cannot map to the store's folder."""
    if value and (not _ACCEL_PREFIX.fullmatch(value) or value.startswith(SERVED)):
        ours = " or ".join(SERVED)
        raise ValueError(f"must be empty, or a path of its own between slashes, such as /lazypix-files/; not {ours}")
    return value


def check_broker(value: SecretStr | None) -> SecretStr | None:
    """Refuse brokers that Celery is not tried with."""
    if value is not None and value.get_secret_value().partition("://")[0] not in _BROKERS:
        raise ValueError(f"must begin with one of {', '.join(f'{name}://' for name in _BROKERS)}")
    return value


def open_to_all(host: object, *, api_keys: object, keys_required: object, urls: object) -> str | None:
    """Return what is missing before an address may be listened on that others can reach, or None.

    The values may be those of the environment, as they are.
    """
    if not isinstance(host, str) or is_loopback(host):
        return None
    keys = api_keys or (keys_required and str(keys_required).lower() not in ("0", "false", "f", "no", "n", "off"))
    missing = [name for name, value in (("api_keys", keys), ("urls", urls)) if not value]
    if not missing:
        return None
    return (
        f"host={host!r} can be reached from outside; that needs {' and '.join(missing)} "
        "(api_keys: at least one key for writes, or keys_required and `lazypix keys add`; "
        'urls: "open" lets everybody ask for any size, "signed" who has a signed link, '
        '"presets" everybody for named sizes)'
    )


def unanswerable(urls: object, *, url_keys: object, presets: object) -> str | None:
    """Return what is missing before anything can be asked for where `urls` is not open to all, or None."""
    needed = {
        "signed": ("url_keys", url_keys, "`lazypix url-key` makes one"),
        "presets": ("presets", presets, 'a table such as {thumb = "200x200,fit=cover"}'),
    }
    name, value, how = needed.get(str(urls), ("", True, ""))
    return None if value else f"urls={urls!r} needs {name}: {how}"


def over_limits(presets: Presets, limits: Limits) -> str | None:
    """Return which presets are over the limits, whatever the image; None: none."""
    faults = []
    for name, transform in presets.by_name.items():
        try:
            check_size(transform, limits)
        except LazypixError as error:
            faults.append(f"presets: {name}: {error}")
    return "; ".join(faults) or None


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine and nothing else, without asking a name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
