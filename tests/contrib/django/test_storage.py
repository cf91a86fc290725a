"""The storage: fields that know nothing of lazypix keep their images in it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.db.migrations.writer import MigrationWriter
from django.test.utils import CaptureQueriesContext, override_settings
from tests.contrib.django import project
from tests.engine.pictures import bomb, encoded, quadrants

from lazypix import Library
from lazypix.contrib.django.storage import FileRefused, LazypixStorage, ident_of

project.begin()
from tests.contrib.django.shop.models import Paper, Photo  # noqa: E402

PNG = encoded(quadrants(120, 80))


def images() -> Any:
    return storages["images"]


def read(alias: str, name: str) -> bytes:
    with storages[alias].open(name) as file:
        return bytes(file.read())


def test_an_image_field_works_as_it_is(shop: Library) -> None:
    row = Paper.objects.create(picture=SimpleUploadedFile("sun set.png", PNG))
    assert (row.wide, row.high) == (120, 80)
    found = Paper.objects.get().picture
    ident = ident_of(found.name)
    assert found.name == f"pictures/lazypix-{ident}.png"
    assert (found.width, found.height, found.size) == (120, 80, len(PNG))
    with found.open() as file:
        assert file.read() == PNG
    with CaptureQueriesContext(connection) as seen:
        assert found.url == f"/media/image/{ident}.png"
    assert len(seen) == 0
    assert shop.get(str(ident)).filename == "sun_set.png"
    with found.open() as file:
        assert file.read(4) == PNG[:4]
    found.delete()
    assert shop.list() == []


def test_an_original_that_browsers_do_not_show_has_an_address_all_the_same(shop: Library) -> None:
    name = images().save("scan.tif", ContentFile(encoded(quadrants(), "tiff")))
    assert images().url(name) == f"/media/image/{ident_of(name)}.tiff"


def test_the_storage_s_own_methods(shop: Library) -> None:
    name = images().save("a/b.png", ContentFile(PNG))
    assert images().exists(name)
    assert images().size(name) == len(PNG)
    assert read("images", name) == PNG
    assert abs(images().get_created_time(name) - datetime.now(UTC)) < timedelta(minutes=5)
    assert images().get_modified_time(name) == images().get_created_time(name)
    with override_settings(USE_TZ=False):
        assert images().get_created_time(name).tzinfo is None
    images().delete(name)
    images().delete(name)
    assert not images().exists(name)
    for ask in (images().size, images().open, images().get_created_time):
        with pytest.raises(FileNotFoundError, match="lazypix-"):
            ask(name)


def test_a_name_is_never_taken_twice(shop: Library) -> None:
    first, second = (images().save("same.png", io.BytesIO(PNG)) for _ in range(2))
    assert first != second
    assert read("images", first) == read("images", second) == PNG


def test_an_image_cannot_be_written_to(shop: Library) -> None:
    name = images().save("a.png", ContentFile(PNG))
    with pytest.raises(ValueError, match="accepted: 'rb'"):
        images().open(name, "wb")


@pytest.mark.parametrize(
    ("content", "said"), [(b"%PDF-1.4", "fallback"), (PNG[:-40], "a.png"), (bomb(), "at most"), (b"", "empty")]
)
def test_what_is_no_image_is_refused(shop: Library, content: bytes, said: str) -> None:
    with pytest.raises(FileRefused, match=said):
        images().save("a.png", ContentFile(content))
    assert issubclass(FileRefused, SuspiciousFileOperation)  # so that it is answered with 400
    assert shop.list() == []


def test_other_files_go_to_the_fallback(shop: Library) -> None:
    row = Paper.objects.create(file=SimpleUploadedFile("a.pdf", b"%PDF-1.4"))
    found = Paper.objects.get().file
    assert found.name == "papers/a.pdf"
    assert found.read() == b"%PDF-1.4"
    assert found.size == 8
    assert storages["files"].exists(found.name)
    assert shop.list() == []
    row.file.delete()
    assert not storages["files"].exists("papers/a.pdf")


def test_names_of_before_are_the_fallback_s(shop: Library) -> None:
    storages["files"].save("old/photo.jpg", ContentFile(PNG))
    assert read("default", "old/photo.jpg") == PNG
    assert storages["default"].exists("old/photo.jpg")
    assert not images().exists("old/photo.jpg")
    with pytest.raises(FileNotFoundError, match="no fallback"):
        images().url("old/photo.jpg")
    images().delete("old/photo.jpg")
    assert storages["default"].exists("old/photo.jpg")


def test_a_name_longer_than_its_column_is_refused_before_anything_is_stored(shop: Library) -> None:
    with pytest.raises(FileRefused, match="the field: 100"):
        images().save(f"{'x' * 80}/a.png", ContentFile(PNG), max_length=100)
    assert shop.list() == []


def test_a_row_moves_to_the_model_field_without_a_copy(shop: Library) -> None:
    paper = Paper.objects.create(picture=SimpleUploadedFile("sun.png", PNG))
    photo = Photo.objects.create(image=storages["images"].reference(paper.picture.name))
    assert photo.image.ident == ident_of(paper.picture.name)
    assert len(shop.list()) == 1


def test_an_old_field_s_file_is_copied_into_the_model_field(shop: Library) -> None:
    storages["files"].save("old/photo.png", ContentFile(PNG))
    paper = Paper.objects.create()
    Paper.objects.update(picture="old/photo.png")
    paper.refresh_from_db()
    photo = Photo.objects.create(image=paper.picture)
    assert shop.original(photo.image.ident) == PNG
    assert shop.get(photo.image.ident).filename == "photo.png"


def test_the_storage_is_written_into_migrations() -> None:
    text, _ = MigrationWriter.serialize(LazypixStorage(fallback="files"))
    assert text == "lazypix.contrib.django.storage.LazypixStorage(fallback='files')"
