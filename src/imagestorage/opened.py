"""The libraries of this process: one for each place that it was configured with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial

from imagestorage.places import Credentials, Place, read_place
from lazypix.contrib.opening import OneAProcess, open_with
from lazypix.settings import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A place, and the library there: opened when first asked for, and anew in a process that was forked."""

    place: Place
    library: OneAProcess
    max_age_s: int
    """For how long browsers may keep an answer."""


_Choice = tuple[Place, Credentials, tuple[tuple[str, Hashable], ...]]
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
    found = _open(place, keys, settings)
    _latest[place] = found
    return found


def opened_at(place: Place) -> Opened:
    """Return the library of a place: as this process was configured for it at last, else as the settings say.

    Raises:
        SettingsError: names every fault.
    """
    return _latest.get(place) or _open(place, Credentials(), {})


def close_all() -> None:
    """Close all libraries of this process; each is opened again when it is asked for again."""
    for opened in list(_opened.values()):
        opened.library.close()


def _open(place: Place, keys: Credentials, settings: Mapping[str, Hashable]) -> Opened:
    choice = place, keys, tuple(sorted(settings.items()))
    if choice not in _opened:
        made = load(
            {
                "host": "127.0.0.1",  # nothing is listened on here
                **settings,
                "store": place.store,
                "store_access_key": keys.access_key,
                "store_secret_key": keys.secret_key,
                "key_prefix": place.base_path,
                "key_shard": 0,  # the layout that the URLs promise
            }
        )
        own = Opened(place=place, library=OneAProcess(partial(open_with, made, jobs=False)), max_age_s=made.max_age_s)
        _opened.setdefault(choice, own)
    return _opened[choice]
