"""What is stored stays only if its row is committed; what no row names any more goes, after the commit.

Django tells of commits, not of rollbacks: it drops the functions that waited for the commit. So what waits here is a
`Keepsake`: called, it is kept; dropped uncalled, the image is removed again. A savepoint's rollback is seen that way
too. What is not seen (a killed process, `QuerySet.update`, raw SQL) is found by `manage.py lazypix orphans`.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.apps import apps
from django.db import DatabaseError, connections, models, router

from lazypix.contrib.django import configured
from lazypix.errors import LazypixError, UnknownImage

log = logging.getLogger("lazypix.django")


@dataclass(slots=True)
class _Fate:
    """What becomes of a stored image; outlives the keepsake."""

    ident: str
    using: str | None = None
    """The database whose commit is waited for."""
    kept: bool = False
    gone: bool = False


class _Hope:
    """Lives as long as somebody may still keep the image."""

    def __init__(self, fate: _Fate) -> None:
        self.fate = fate
        # Not at the end of the process: the library may be closed by then. `orphans` finds what is left.
        weakref.finalize(self, _hope_is_lost, fate).atexit = False

    def keep(self) -> None:
        self.fate.kept = True


class Keepsake:
    """Decides whether an image that was stored for a row stays. Not for several threads at once."""

    def __init__(self, fate: _Fate) -> None:
        self._fate = fate
        self._hope: _Hope | None = _Hope(fate)
        self._entrusted: weakref.ref[_Hope] = weakref.ref(self._hope)

    def is_kept(self) -> bool:
        """Whether the image stays: its row was committed."""
        return self._fate.kept

    def is_gone(self) -> bool:
        """Whether the image was removed again: its row was rolled back."""
        return self._fate.gone

    def keep(self) -> None:
        """Let the image stay."""
        self._fate.kept = True

    def entrust(self, using: str) -> None:
        """Let a transaction that is under way decide: with its commit the image is kept, else removed."""
        hope = self._hope or self._entrusted()
        if hope is None or self._fate.kept:
            return
        self._fate.using = using
        connections[using].on_commit(hope.keep)
        self._hope = None  # the transaction alone holds it now


def remember(ident: str) -> Keepsake:
    """Return what decides about an image that was stored just now; dropped, it removes it."""
    return Keepsake(_Fate(ident))


def _hope_is_lost(fate: _Fate) -> None:
    if fate.kept:
        return
    if fate.using is not None and _may_be_committed(fate):
        fate.kept = True
        return
    fate.gone = True
    if fate.using is not None:
        _remove(fate.ident)
        return
    # A row without a transaction may be collected wherever memory is: also while this thread writes to the catalog.
    try:
        threading.Thread(target=_remove, args=(fate.ident,), name="lazypix-remove").start()
    except RuntimeError:
        log.warning("%s belongs to no row, and the process ends; `manage.py lazypix orphans` finds it", fate.ident)


def _remove(ident: str) -> None:
    try:
        configured.library().delete(ident, for_good=True)
    except UnknownImage:
        pass
    except LazypixError as error:
        log.warning("%s belongs to no row and is not removed: %s; `manage.py lazypix orphans` finds it", ident, error)


def _may_be_committed(fate: _Fate) -> bool:
    """Tell whether the row may be there although nobody was told.

    Django drops what waited for a commit also when something else that waited for it has failed. It does so in
    autocommit mode, where the row can be looked for; a rollback comes while the transaction is still there.
    """
    assert fate.using is not None
    connection = connections[fate.using]
    if connection.in_atomic_block or not connection.autocommit:
        return False
    try:
        return is_used(fate.ident, fate.using)
    except DatabaseError as error:
        log.warning("%s may belong to no row, but that cannot be looked for: %s", fate.ident, error)
        return True


def remove_on_commit(ident: str, using: str) -> None:
    """Remove an image once the transaction is committed, unless some row names it then."""
    connection = connections[using]
    if not connection.in_atomic_block and not connection.get_autocommit():
        log.warning("%s may belong to no row after a commit by hand; `manage.py lazypix orphans` finds it", ident)
        return
    connection.on_commit(partial(_remove_unused, ident, using))


def _remove_unused(ident: str, using: str) -> None:
    try:
        if not is_used(ident, using):
            configured.library().delete(ident)
    except UnknownImage:
        pass  # somebody else removed it
    except (LazypixError, DatabaseError) as error:
        log.warning("%s belongs to no row and is not removed: %s; `manage.py lazypix orphans` finds it", ident, error)


def image_fields() -> Iterator[tuple[type[models.Model], Any]]:
    """Yield every field of the project that keeps images, with the model whose table has the column."""
    for model in apps.get_models(include_auto_created=True):
        if not model._meta.proxy:
            yield from ((model, f) for f in model._meta.local_concrete_fields if getattr(f, "keeps_images", False))


def is_used(ident: str, using: str) -> bool:
    """Tell whether any row names an image; managers, which may hide rows, are not asked.

    Raises:
        DatabaseError: it cannot be looked for.
    """
    return any(
        models.QuerySet(model, using=database_of(model, using)).filter(**{f"{field.name}__ident": ident}).exists()
        for model, field in image_fields()
    )


def database_of(model: type[models.Model], using: str) -> str:
    """Return the database to look for a model's rows in: `using`, if they are there."""
    return using if router.allow_migrate_model(using, model) else router.db_for_read(model)
