"""The model field: what is stored, what it says, and what is removed when."""

from __future__ import annotations

import copy
import gc
import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import serializers
from django.core.exceptions import FieldDoesNotExist, FieldError, ValidationError
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, connection, models, transaction
from django.db.migrations.writer import MigrationWriter
from django.test.utils import CaptureQueriesContext
from tests.contrib.django import project
from tests.engine.pictures import encoded, quadrants
from tests.waiting import until

from lazypix import Library
from lazypix.contrib.django.fields import LazypixField
from lazypix.contrib.django.values import NewImage, StoredImage
from lazypix.errors import UnknownImage, UnsupportedImage

project.begin()
from tests.contrib.django.shop.models import Album, Cover, Page, Photo, Portrait, Snapshot  # noqa: E402

PNG = encoded(quadrants(120, 80))
OTHER = encoded(quadrants(60, 90))


class Broken(Exception):
    pass


def idents(library: Library) -> set[str]:
    return {image.ident for image in library.list(limit=1000)}


def queries() -> CaptureQueriesContext:
    return CaptureQueriesContext(connection)


@pytest.fixture
def photo(shop: Library) -> Any:
    return Photo.objects.create(title="one", image=SimpleUploadedFile("sun.png", PNG))


# --- what can be assigned ----------------------------------------------------------------------------------------


def sources(folder: Path) -> Iterator[tuple[str, object]]:
    path = folder / "sun.png"
    path.write_bytes(PNG)
    yield "upload", SimpleUploadedFile("sun.png", PNG)
    yield "file", ContentFile(PNG, name="sun.png")
    yield "bytes", PNG
    yield "bytearray", bytearray(PNG)
    yield "path", path
    yield "stream", io.BytesIO(PNG)


def test_whatever_holds_an_image_can_be_assigned(shop: Library, tmp_path: Path) -> None:
    for name, source in sources(tmp_path):
        row = Photo.objects.create(title=name, image=source)
        image = Photo.objects.get(title=name).image
        assert image == row.image
        assert (image.width, image.height, image.format) == (120, 80, "png")
        assert shop.original(image.ident) == PNG
    assert {i.filename for i in shop.list()} == {"sun.png", None}


def test_images_that_are_in_the_library_can_be_assigned(shop: Library) -> None:
    added = shop.add(PNG)
    for given in (added, added.reference(), added.reference().to_json(), StoredImage(reference=added.reference())):
        row = Photo.objects.create(image=given)
        assert Photo.objects.get(pk=row.pk).image.ident == added.ident
    assert idents(shop) == {added.ident}


@pytest.mark.parametrize("given", ["sun.png", 7, object()])
def test_what_is_no_image_is_refused_when_it_is_assigned(given: object) -> None:
    with pytest.raises(TypeError, match="accepted: an uploaded file"):
        Photo(image=given)


def test_nothing_can_be_assigned(photo: Any, shop: Library) -> None:
    photo.image = None
    photo.save()
    assert Photo.objects.get().image is None
    assert Photo.objects.filter(image__isnull=True).count() == 1
    assert idents(shop) == set()


def test_nothing_is_stored_before_the_row_is_saved(shop: Library) -> None:
    row = Photo(title="one", image=PNG)
    assert isinstance(row.image, NewImage)
    assert idents(shop) == set()
    row.save()
    assert idents(shop) == {row.image.ident}


def test_what_lazypix_refuses_is_not_saved(shop: Library) -> None:
    with pytest.raises(UnsupportedImage):
        Photo.objects.create(image=b"no image at all")
    assert Photo.objects.count() == 0


# --- the value ---------------------------------------------------------------------------------------------------


def test_the_value_writes_addresses_and_html_without_a_look(photo: Any) -> None:
    image = Photo.objects.get().image
    with queries() as seen:
        assert image.url("60x40,fit=cover") == f"/media/image/60x40,fit=cover/{image.ident}.auto"
        html = image.img("60x40", alt='a "sun"')
    assert len(seen) == 0
    assert 'width="60" height="40"' in html
    assert "a &quot;sun&quot;" in html
    assert str(image) == image.ident


def test_a_focal_point_is_kept_and_crops(photo: Any, shop: Library) -> None:
    ident = photo.image.ident
    photo.image = photo.image.with_focus(0.25, 0.75)
    photo.save()
    image = Photo.objects.get().image
    assert (image.focus.x, image.focus.y) == (0.25, 0.75)
    assert "gravity=0.25:0.75" in image.url("30x80,fit=cover")
    assert idents(shop) == {ident}
    assert image.without_focus().focus is None


def test_a_value_can_be_pickled_and_copied_also_before_the_commit(shop: Library) -> None:
    with transaction.atomic():
        row = Photo.objects.create(image=io.BytesIO(PNG))
        assert pickle.loads(pickle.dumps(row)).image == row.image
        assert copy.deepcopy(row).image == row.image
    assert idents(shop) == {row.image.ident}


def test_the_column_is_compact_json_that_begins_with_the_ident(photo: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT image FROM shop_photo")
        (text,) = cursor.fetchone()
    assert text.startswith(f'{{"ident":"{photo.image.ident}",')
    assert json.loads(text) == photo.image.reference.to_json()


# --- rollbacks ---------------------------------------------------------------------------------------------------


def test_a_rolled_back_transaction_leaves_nothing(shop: Library) -> None:
    def fail() -> None:
        with transaction.atomic():
            Photo.objects.create(image=PNG)
            assert len(idents(shop)) == 1
            raise Broken

    with pytest.raises(Broken):
        fail()
    assert idents(shop) == set()


def test_a_rolled_back_savepoint_leaves_nothing_and_the_rest_stays(shop: Library) -> None:
    def fail() -> None:
        with transaction.atomic():
            Photo.objects.create(image=OTHER)
            raise Broken

    with transaction.atomic():
        kept = Photo.objects.create(image=PNG)
        with pytest.raises(Broken):
            fail()
        assert idents(shop) == {kept.image.ident}
    assert idents(shop) == {kept.image.ident}


def test_a_statement_that_fails_leaves_nothing(photo: Any, shop: Library) -> None:
    row = Photo(title="one", image=OTHER)  # a title twice
    with pytest.raises(IntegrityError):
        row.save()
    del row
    gc.collect()  # the error's traceback held the row
    until(lambda: idents(shop) == {photo.image.ident})


def test_a_row_that_is_collected_while_the_catalog_is_written_does_not_wait_for_itself(
    photo: Any, shop: Library
) -> None:
    row = Photo(title="one", image=OTHER)
    with pytest.raises(IntegrityError) as failed:
        row.save()
    row.error = failed.value  # a circle
    del row, failed
    with shop.catalog.jobs.adding():
        gc.collect()
    until(lambda: idents(shop) == {photo.image.ident})


def test_a_field_that_may_be_blank_and_not_null_is_empty_text(shop: Library) -> None:
    page = Page.objects.create()
    assert Page.objects.get(image="").image is None
    page.image = PNG
    page.save()
    assert Page.objects.exclude(image="").get().image.ident == page.image.ident
    page.image = None
    page.save()
    assert idents(shop) == set()


def test_a_row_that_failed_can_be_saved_again(photo: Any, shop: Library) -> None:
    row = Photo(title="one", image=SimpleUploadedFile("moon.png", OTHER))
    for _ in range(2):
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save()
        assert idents(shop) == {photo.image.ident}
    row.title = "two"
    row.save()
    assert idents(shop) == {photo.image.ident, row.image.ident}
    assert shop.original(Photo.objects.get(title="two").image.ident) == OTHER


def test_a_row_that_failed_outside_of_a_transaction_is_saved_with_what_is_stored_already(
    photo: Any, shop: Library
) -> None:
    row = Photo(title="one", image=OTHER)
    with pytest.raises(IntegrityError):
        row.save()
    row.title = "two"
    row.save()
    assert idents(shop) == {photo.image.ident, row.image.ident}


def test_what_was_committed_stays_although_something_else_fails_after_the_commit(shop: Library) -> None:
    def fail() -> None:
        raise Broken

    @transaction.atomic
    def store() -> None:
        transaction.on_commit(fail)
        Photo.objects.create(image=PNG)

    with pytest.raises(Broken):
        store()
    assert idents(shop) == {Photo.objects.get().image.ident}


def test_a_rolled_back_replacement_leaves_the_old_image(photo: Any, shop: Library) -> None:
    before = photo.image.ident

    def fail() -> None:
        with transaction.atomic():
            photo.image = OTHER
            photo.save()
            raise Broken

    with pytest.raises(Broken):
        fail()
    assert idents(shop) == {before}
    assert Photo.objects.get().image.ident == before
    photo.save()  # once more, with what was rolled back
    assert idents(shop) == {Photo.objects.get().image.ident}
    assert shop.original(Photo.objects.get().image.ident) == OTHER


def test_a_rolled_back_deletion_leaves_the_image(photo: Any, shop: Library) -> None:
    def fail() -> None:
        with transaction.atomic():
            Photo.objects.all().delete()
            raise Broken

    with pytest.raises(Broken):
        fail()
    assert shop.original(Photo.objects.get().image.ident) == PNG


def test_many_rows_at_once_are_stored_and_rolled_back(shop: Library) -> None:
    rows = Photo.objects.bulk_create([Photo(image=PNG), Photo(image=OTHER)])
    assert idents(shop) == {row.image.ident for row in rows}
    with pytest.raises(IntegrityError):
        Photo.objects.bulk_create([Photo(title="same", image=PNG), Photo(title="same", image=PNG)])
    assert idents(shop) == {row.image.ident for row in rows}


# --- what goes ---------------------------------------------------------------------------------------------------


def test_a_replaced_image_goes_with_the_commit(photo: Any, shop: Library) -> None:
    before = photo.image.ident
    with transaction.atomic():
        photo.image = OTHER
        photo.save()
        assert before in idents(shop)
    assert idents(shop) == {photo.image.ident}
    with pytest.raises(UnknownImage):
        shop.get(before)


def test_a_replaced_image_goes_without_a_transaction_too(photo: Any, shop: Library) -> None:
    photo.image = OTHER
    photo.save()
    assert idents(shop) == {photo.image.ident}


def test_of_several_replacements_the_last_stays(photo: Any, shop: Library) -> None:
    with transaction.atomic():
        for source in (OTHER, PNG, OTHER):
            photo.image = source
            photo.save()
    assert idents(shop) == {photo.image.ident}
    assert shop.original(photo.image.ident) == OTHER


def test_what_another_process_put_there_is_replaced_too(photo: Any, shop: Library) -> None:
    stale = Photo.objects.get()
    photo.image = OTHER
    photo.save()
    stale.image = PNG
    stale.save()
    assert idents(shop) == {stale.image.ident}


def test_a_row_made_by_hand_with_a_key_that_is_there_replaces(photo: Any, shop: Library) -> None:
    Photo(pk=photo.pk, title="one", image=OTHER).save()
    assert idents(shop) == {Photo.objects.get().image.ident}


def test_saving_other_fields_removes_nothing(photo: Any, shop: Library) -> None:
    before = photo.image.ident
    photo.image = OTHER
    photo.title = "new"
    photo.save(update_fields=["title"])
    assert Photo.objects.get().image.ident == before
    assert idents(shop) == {before}


def test_saving_what_was_not_assigned_looks_nothing_up(photo: Any) -> None:
    row = Photo.objects.get()
    row.title = "new"
    with queries() as seen:
        row.save()
    assert len(seen) == 1


def test_a_deleted_row_s_image_goes_with_the_commit(photo: Any, shop: Library) -> None:
    with transaction.atomic():
        photo.delete()
        assert len(idents(shop)) == 1
    assert idents(shop) == set()


def test_rows_deleted_by_query_and_by_cascade_take_their_images_along(shop: Library) -> None:
    album = Album.objects.create(name="a")
    for source in (PNG, OTHER, PNG):
        Photo.objects.create(album=album, image=source)
    Photo.objects.filter(pk=Photo.objects.first().pk).delete()
    assert len(idents(shop)) == 2
    album.delete()
    assert idents(shop) == set()


@pytest.mark.parametrize("load", [
    lambda: Photo.objects.only("pk").get(), lambda: Photo.objects.defer("image").get(), lambda: Snapshot.objects.get(),
])  # fmt: skip
def test_a_row_is_deleted_whatever_is_loaded_of_it(photo: Any, shop: Library, load: Any) -> None:
    load().delete()
    assert idents(shop) == set()


def test_a_row_is_deleted_with_the_image_that_it_has_and_not_with_one_that_was_never_saved(
    photo: Any, shop: Library
) -> None:
    photo.image = OTHER
    photo.delete()
    assert idents(shop) == set()


def test_a_child_has_its_parent_s_image_and_its_own(shop: Library) -> None:
    cover = Cover.objects.create(image=PNG, back=OTHER)
    assert len(idents(shop)) == 2
    cover.image = OTHER
    cover.save()
    assert idents(shop) == {cover.image.ident, cover.back.ident}
    cover.delete(keep_parents=True)
    assert idents(shop) == {cover.image.ident}
    Photo.objects.get().delete()
    assert idents(shop) == set()


def test_a_proxy_replaces_as_its_model_does(photo: Any, shop: Library) -> None:
    row = Snapshot.objects.get()
    row.image = OTHER
    row.save()
    assert idents(shop) == {row.image.ident}


def test_an_image_that_two_rows_name_stays_until_the_last_is_gone(photo: Any, shop: Library) -> None:
    copied = Photo.objects.get()
    copied.pk, copied.title, copied._state.adding = None, "copy", True
    copied.image = copied.image.with_focus(0.1, 0.1)  # another text in the column
    copied.save()
    photo.delete()
    assert idents(shop) == {copied.image.ident}
    copied.image = OTHER
    copied.save()
    assert idents(shop) == {copied.image.ident}


def test_two_rows_with_one_image_are_deleted_together(photo: Any, shop: Library) -> None:
    Photo.objects.create(image=photo.image)
    Photo.objects.all().delete()
    assert idents(shop) == set()


def test_a_field_that_removes_nothing_leaves_images(shop: Library) -> None:
    row = Portrait.objects.create(image=PNG)
    row.image = OTHER
    row.save()
    row.delete()
    assert len(idents(shop)) == 2


def test_an_image_that_somebody_removed_is_no_trouble(photo: Any, shop: Library) -> None:
    shop.delete(photo.image.ident)
    photo.delete()
    assert Photo.objects.count() == 0


# --- the field in Django -----------------------------------------------------------------------------------------


def test_rows_are_found_by_ident(photo: Any, shop: Library) -> None:
    other = Photo.objects.create(image=OTHER)
    assert Photo.objects.get(image__ident=photo.image.ident) == photo
    assert Photo.objects.get(image__ident=other.image) == other
    assert Photo.objects.exclude(image__ident=photo.image.ident).get() == other
    assert Photo.objects.get(image=photo.image) == photo
    assert not Photo.objects.filter(image__ident=photo.image.ident[:-1]).exists()
    assert not Photo.objects.filter(image__ident="not an ident%").exists()
    with pytest.raises(FieldError, match="no ident"):
        Photo.objects.filter(image__ident=7)


def test_rows_are_found_by_ident_with_an_index(photo: Any) -> None:
    assert "USING INDEX shop_photo_image" in Photo.objects.filter(image__ident=photo.image.ident).explain()


@pytest.mark.parametrize("store", [
    lambda: Photo.objects.update(image=PNG), lambda: Photo.objects.filter(image=PNG).exists(),
])  # fmt: skip
def test_what_cannot_be_stored_there_says_so(photo: Any, store: Any) -> None:
    with pytest.raises(TypeError, match="assign it to a row and save that"):
        store()


def test_an_update_by_query_takes_stored_images(photo: Any, shop: Library) -> None:
    added = shop.add(OTHER)
    Photo.objects.update(image=added.reference())
    assert Photo.objects.get().image.ident == added.ident
    row = Photo.objects.get()
    row.image = row.image.with_focus(0.5, 0.25)
    Photo.objects.bulk_update([row], ["image"])
    assert Photo.objects.get().image.focus.y == 0.25


@pytest.mark.parametrize("form", ["json", "xml", "jsonl"])
def test_rows_are_dumped_and_loaded(photo: Any, shop: Library, form: str) -> None:
    Photo.objects.create(title="none")
    text = serializers.serialize(form, Photo.objects.all())
    models.QuerySet(Photo)._raw_delete("default")
    for found in serializers.deserialize(form, text):
        found.save()
    assert [row.image for row in Photo.objects.order_by("pk")] == [photo.image, None]
    assert idents(shop) == {photo.image.ident}


def test_the_field_is_written_into_migrations() -> None:
    for field, expected in (
        (LazypixField(), "lazypix.contrib.django.fields.LazypixField()"),
        (LazypixField(null=True, blank=True), "lazypix.contrib.django.fields.LazypixField(blank=True, null=True)"),
        (
            LazypixField(db_index=False, removes=False),
            "lazypix.contrib.django.fields.LazypixField(db_index=False, removes=False)",
        ),
    ):
        assert MigrationWriter.serialize(field)[0] == expected
        clone = field.clone()
        assert (clone.db_index, clone.removes) == (field.db_index, field.removes)


def test_a_unique_field_is_refused_by_the_check() -> None:
    field = LazypixField(unique=True)
    field.set_attributes_from_name("image")
    field.model = Photo
    assert "lazypix.E010" in [message.id for message in field.check()]
    with pytest.raises(FieldDoesNotExist):
        Album._meta.get_field("image")


def test_values_are_checked_as_other_fields_are(shop: Library) -> None:
    with pytest.raises(ValidationError, match="cannot be null"):
        Portrait().full_clean()
    Portrait(image=PNG).full_clean()
    with pytest.raises(ValidationError, match="no image"):
        LazypixField().to_python("nonsense")
