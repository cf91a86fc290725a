"""Images that no row names: what a killed process left, `QuerySet.update`, or raw SQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.apps import apps
from django.db import connections, models, router

from lazypix.contrib.django import configured
from lazypix.contrib.django.keeping import image_fields
from lazypix.contrib.django.storage import LazypixStorage, ident_of
from lazypix.contrib.django.values import StoredImage

_PAGE = 500


def find_orphans(*, older_than_s: float) -> Iterator[str]:
    """Yield the idents of the library's images that no row names, newest first.

    Rows of all databases are read whole once: first the images are listed, so that what is stored meanwhile is not
    taken for one of them. An image that is younger than `older_than_s` may belong to a transaction under way.

    Raises:
        StoreFailed: the catalog does not answer.
        DatabaseError: a database does not answer; nothing was yielded.
    """
    latest = datetime.now(UTC) - timedelta(seconds=older_than_s)
    candidates = [ident for ident, created in _all_images() if created <= latest]
    named = set(_named())
    yield from (ident for ident in candidates if ident not in named)


def _all_images() -> Iterator[tuple[str, datetime]]:
    library, behind = configured.library(), None
    while page := library.list(limit=_PAGE, before=behind):
        yield from ((image.ident, image.created) for image in page)
        behind = page[-1].ident


def _named() -> Iterator[str]:
    for model, field in image_fields():
        yield from (v.ident for v in _values(model, field.attname) if isinstance(v, StoredImage))
    for model in apps.get_models(include_auto_created=True):
        for field in [] if model._meta.proxy else model._meta.local_concrete_fields:
            if isinstance(field, models.FileField) and isinstance(field.storage, LazypixStorage):
                yield from (ident for name in _values(model, field.attname) if (ident := ident_of(str(name))))


def _values(model: type[models.Model], name: str) -> Iterator[object]:
    for using in connections:
        if router.allow_migrate_model(using, model) and model._meta.db_table in _tables(using):
            yield from models.QuerySet(model, using=using).values_list(name, flat=True).iterator(chunk_size=2000)


def _tables(using: str) -> set[str]:
    return set(connections[using].introspection.table_names(include_views=True))
