"""The model field on PostgreSQL: two databases in one project, transactions that run at once, and the index."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management import call_command
from django.db import connections, models, transaction
from tests.contrib.django import project
from tests.engine.pictures import encoded, quadrants
from tests.waiting import WAIT_S

from lazypix import Library
from lazypix.contrib.django.orphans import find_orphans

project.begin()
from tests.contrib.django.shop.models import Page, Photo  # noqa: E402

PNG, OTHER = encoded(quadrants(120, 80)), encoded(quadrants(60, 90))


class Broken(Exception):
    pass


@pytest.fixture(scope="module")
def big(shop: Library, new_database: Callable[..., str]) -> Iterator[Library]:
    """The library of a project whose second database is PostgreSQL."""
    address = urlsplit(new_database())
    said = {"NAME": address.path[1:], "USER": address.username, "HOST": address.hostname, "PORT": str(address.port)}
    said["ENGINE"] = "django.db.backends.postgresql"
    connections.settings["big"] = connections.settings["default"] | {
        name: value or "" for name, value in said.items()
    }
    call_command("migrate", run_syncdb=True, database="big", verbosity=0)
    yield shop
    connections["big"].close()
    del connections["big"], connections.settings["big"]


@pytest.fixture(autouse=True)
def no_rows(big: Library) -> None:
    models.QuerySet(Photo)._raw_delete("big")


def idents(library: Library) -> set[str]:
    return {image.ident for image in library.list(limit=1000)}


def at_once(*works: Callable[[], None]) -> None:
    """Do several things in threads, each with a connection of its own, and fail as they do."""

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as threads:
        for done in [threads.submit(run, work) for work in works]:
            done.result(WAIT_S)


def test_the_row_s_own_database_decides(big: Library) -> None:
    def fail() -> None:
        with transaction.atomic(using="big"):
            Photo.objects.using("big").create(image=OTHER)
            raise Broken

    photo = Photo.objects.using("big").create(image=PNG)
    with pytest.raises(Broken):
        fail()
    assert idents(big) == {photo.image.ident}
    assert Photo.objects.using("big").get(image__ident=photo.image.ident) == photo
    with transaction.atomic(using="big"):
        photo.image = OTHER
        photo.save()
        assert len(idents(big)) == 2
    assert idents(big) == {photo.image.ident}
    photo.delete()
    assert idents(big) == set()


def test_a_savepoint_s_rollback_and_an_aborted_transaction_leave_nothing(big: Library) -> None:
    def twice() -> None:
        with transaction.atomic(using="big"):
            Photo.objects.using("big").create(title="two", image=PNG)
            Photo.objects.using("big").create(title="one", image=PNG)

    photo = Photo.objects.using("big").create(title="one", image=PNG)
    with pytest.raises(Exception, match="title"):
        twice()
    assert idents(big) == {photo.image.ident}


def test_two_transactions_that_replace_one_image_leave_one(big: Library) -> None:
    photo = Photo.objects.using("big").create(image=PNG)
    both = threading.Barrier(2)

    def replace(source: bytes) -> Callable[[], None]:
        def work() -> None:
            row = Photo.objects.using("big").get(pk=photo.pk)
            both.wait(WAIT_S)
            with transaction.atomic(using="big"):
                row.image = source
                row.save()

        return work

    at_once(replace(OTHER), replace(PNG))
    assert idents(big) == {Photo.objects.using("big").get().image.ident}


def test_two_transactions_that_delete_the_two_rows_of_one_image_leave_none(big: Library) -> None:
    photo = Photo.objects.using("big").create(image=PNG)
    copied = Photo.objects.using("big").create(image=photo.image)
    both = threading.Barrier(2)

    def delete(row: Any) -> Callable[[], None]:
        def work() -> None:
            with transaction.atomic(using="big"):
                row.delete(using="big")
                both.wait(WAIT_S)

        return work

    at_once(delete(photo), delete(copied))
    assert idents(big) == set()


def test_an_index_finds_idents(big: Library) -> None:
    with connections["big"].cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        assert "Index Cond" in Photo.objects.using("big").filter(image__ident="a").explain()
        cursor.execute("RESET enable_seqscan")


def test_images_of_rows_in_any_database_are_no_orphans(big: Library) -> None:
    named = Photo.objects.using("big").create(image=PNG).image.ident
    left = big.add(OTHER).ident
    assert set(find_orphans(older_than_s=0)) & {named, left} == {left}


def test_a_replacement_locks_its_row_however_the_model_is_ordered(big: Library) -> None:
    page = Page.objects.using("big").create(image=PNG)
    with transaction.atomic(using="big"):
        page.image = OTHER
        page.save()
    assert idents(big) == {page.image.ident}
    page.delete()
