"""The libraries of this process: one for each place that it was configured with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from imagestorage.places import Place, read_place
from lazypix.contrib.opening import OneAProcess, open_with
from lazypix.errors import SettingsError
from lazypix.settings import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A place, and the library there: opened when first asked for, and anew in a process that was forked."""

    place: Place
    library: OneAProcess
    max_age_s: int
    """For how long browsers may keep an answer."""


_Choice = tuple[Place, tuple[tuple[str, Hashable], ...]]
_NOWHERE = "127.0.0.1"  # a setting of servers: nothing is listened on here
_opened: dict[_Choice, Opened] = {}
_latest: dict[Place, Opened] = {}


def configured(
    credentials: Mapping[str, str], bucket: str, base_url: str, base_path: str, settings: Mapping[str, Hashable]
) -> Opened:
    """Return what an application is configured with; once more the same is the same library.

    `settings` go before those of `LAZYPIX_*` and the TOML file. Nothing is connected to yet.

    Raises:
        SettingsError: names every fault.
    """
    place, keys = read_place(credentials, bucket, base_url, base_path)
    own = {"store": place.store, "store_access_key": keys.access_key, "store_secret_key": keys.secret_key}
    _latest[place] = found = _open(place, {**settings, **own})
    return found


def opened_at(place: Place) -> Opened:
    """Return the library of a place: as this process was configured for it at last, else as the settings say.

    Others name the place: which server that leads to, with whose keys, this process knows by itself.

    Raises:
        SettingsError: it knows nothing of this bucket; or names every fault of the settings.
    """
    return _latest.get(place) or _open_by_settings(place)


def close_all() -> None:
    """Close all libraries of this process; each is opened again when it is asked for again."""
    for opened in list(_opened.values()):
        opened.library.close()


def _open_by_settings(place: Place) -> Opened:
    store = urlsplit(load({"host": _NOWHERE}).store)
    if (store.scheme, store.netloc, store.path.strip("/")) != ("s3", place.bucket, ""):
        known = f"call storage.configure(…) for it, or set LAZYPIX_STORE to s3://{place.bucket}/?endpoint=…&region=…"
        raise SettingsError(f"This process does not know the bucket {place.bucket[:64]!r}: {known}")
    return _open(place, {})


def _open(place: Place, settings: Mapping[str, Hashable]) -> Opened:
    choice = place, tuple(sorted(settings.items()))
    if choice not in _opened:
        # The last two are the layout that the URLs promise.
        made = load({"host": _NOWHERE, **settings, "key_prefix": place.base_path, "key_shard": 0})
        library = OneAProcess(partial(open_with, made, jobs=False))
        _opened.setdefault(choice, Opened(place=place, library=library, max_age_s=made.max_age_s))
    return _opened[choice]
