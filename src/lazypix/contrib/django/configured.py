"""The library of a Django project: opened as its setting `LAZYPIX` says, once in each process, when first needed.

`LAZYPIX` is a dictionary of lazypix' own settings, in lower case: `{"data": BASE_DIR / "images"}`. What it does not
say is said by the environment and the TOML file, as everywhere.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.urls import NoReverseMatch, get_script_prefix, reverse

from lazypix.addresses import Addresses
from lazypix.composition import make_addresses
from lazypix.contrib.opening import OneAProcess, open_with
from lazypix.dialects.native import MOUNT
from lazypix.errors import SettingsError
from lazypix.library import Library
from lazypix.markup import Tags
from lazypix.settings import Settings, load

SETTING = "LAZYPIX"
_DECIDES_ADDRESSES = (SETTING, "ROOT_URLCONF", "FORCE_SCRIPT_NAME")


def given() -> Mapping[str, Any]:
    """Return what the project says.

    Raises:
        SettingsError: it is no dictionary.
    """
    values = getattr(settings, SETTING, {})
    if not isinstance(values, Mapping):
        raise SettingsError(f"{SETTING} is a {type(values).__name__}; accepted: a dictionary of lazypix' settings")
    return values


def mounted_at() -> str | None:
    """Return the path below which the project includes our URLs, without a slash at its end; None: it does not."""
    try:
        return str(reverse("lazypix:image", kwargs={"path": MOUNT[1:]})).removesuffix(MOUNT)
    except NoReverseMatch:
        return None


def load_settings() -> Settings:
    """Return the settings in force; `base_url` is where our URLs are included, unless it is given.

    Raises:
        SettingsError: names every setting that is wrong.
    """
    loaded = load(given())
    return loaded if loaded.base_url else load({**given(), "base_url": mounted_at() or ""})


@lru_cache(maxsize=1)
def shows_remote() -> bool:
    """Tell whether images of other servers are shown: whether `remote_hosts` is set.

    Raises:
        SettingsError: names every setting that is wrong.
    """
    return bool(load(given()).remote_hosts)


def tags() -> Tags:
    """Return what writes HTML and addresses. No I/O: neither store nor catalog is opened."""
    return _tags(get_script_prefix())


def addresses() -> Addresses:
    """Return what writes addresses. No I/O."""
    return tags().addresses


@lru_cache(maxsize=16)
def _tags(script_prefix: str) -> Tags:
    """Return the tags of an application that is reached under a prefix, which `reverse` looks at."""
    del script_prefix
    return Tags(addresses=make_addresses(load_settings()))


def _open() -> Library:
    return open_with(load_settings())


library = OneAProcess(_open)
"""Returns the library of this process. Safe to call from many threads."""
atexit.register(library.close)


def _forget(*, setting: str, **_: object) -> None:
    """Tests change settings (`override_settings`): what was made of the old ones goes."""
    if setting in _DECIDES_ADDRESSES:
        _tags.cache_clear()
    if setting == SETTING:
        shows_remote.cache_clear()
        library.close()


setting_changed.connect(_forget, dispatch_uid="lazypix")
