"""Forms and the widget: what is refused is said there, and all of it works without JavaScript."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django import forms
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from tests.contrib.django import project
from tests.engine.pictures import bomb, encoded, jpg, quadrants

from lazypix import Library

project.begin()
from tests.contrib.django.shop.models import Photo, Portrait  # noqa: E402

PNG, JPG = encoded(quadrants(120, 80)), jpg(quadrants(90, 90))


class PhotoForm(forms.ModelForm):
    class Meta:
        model = Photo
        fields = ("title", "image")


class PortraitForm(forms.ModelForm):
    class Meta:
        model = Portrait
        fields = ("image",)


def bound(
    upload: bytes | None, name: str = "sun.png", instance: Any = None, form: Any = PhotoForm, **data: str
) -> Any:
    files = {} if upload is None else {"image": SimpleUploadedFile(name, upload)}
    return form({"title": "one", **data}, files, instance=instance)


@pytest.fixture
def photo(shop: Library) -> Any:
    return Photo.objects.create(title="one", image=PNG)


def test_an_upload_is_verified_by_the_form_and_stored_by_the_row(shop: Library) -> None:
    form = bound(PNG)
    assert form.is_valid(), form.errors
    assert shop.list() == []
    row = form.save()
    assert shop.original(Photo.objects.get().image.ident) == PNG
    assert shop.get(row.image.ident).filename == "sun.png"


@pytest.mark.parametrize(
    ("upload", "name", "said"),
    [
        (b"no image", "sun.png", "accepted: jpg, png"),
        (PNG[:-40], "sun.png", "decoded|ends|damaged"),
        (PNG, "sun.jpg", "named .jpg but is a png image"),
        (bomb(), "sun.png", "at most 50"),
        (b"", "sun.png", "empty"),
    ],
)
def test_what_lazypix_refuses_stands_beside_the_field(shop: Library, upload: bytes, name: str, said: str) -> None:
    form = bound(upload, name)
    assert not form.is_valid()
    (error,) = form.errors["image"]
    assert re.search(said, error), error
    assert shop.list() == []


def test_a_form_that_fails_elsewhere_stores_nothing(shop: Library) -> None:
    form = bound(PNG, title="far too long for a title of this model")
    assert not form.is_valid()
    assert shop.list() == []


def test_an_image_must_be_there_where_the_field_says_so(shop: Library) -> None:
    assert bound(None, form=PortraitForm).errors == {"image": ["This field is required."]}
    assert bound(PNG, form=PortraitForm).is_valid()


def test_nothing_sent_leaves_the_image(photo: Any) -> None:
    form = bound(None, instance=photo, title="two")
    assert form.changed_data == ["title"]
    before = photo.image
    assert form.save().image == before
    assert Photo.objects.get().image == before


def test_a_form_that_changes_nothing_of_the_image_looks_nothing_up(photo: Any) -> None:
    form = bound(None, instance=Photo.objects.get(), title="two")
    assert form.is_valid()
    with CaptureQueriesContext(connection) as seen:
        form.save()
    assert len(seen) == 1


def test_a_new_file_replaces(photo: Any, shop: Library) -> None:
    form = bound(JPG, "moon.jpg", instance=photo)
    assert form.changed_data == ["image"]
    row = form.save()
    assert [image.ident for image in shop.list()] == [row.image.ident]
    assert shop.original(row.image.ident) == JPG


def test_the_box_clears(photo: Any, shop: Library) -> None:
    form = bound(None, instance=photo, **{"image-clear": "on"})
    assert form.save().image is None
    assert shop.list() == []
    contradiction = bound(JPG, "moon.jpg", instance=Photo.objects.create(image=PNG), **{"image-clear": "on"})
    assert "not both" in contradiction.errors["image"][0]


def test_the_focal_point_is_taken_in_per_cent(photo: Any, shop: Library) -> None:
    form = bound(None, instance=photo, **{"image-focus-x": "25", "image-focus-y": "66.6"})
    assert form.changed_data == ["image"]
    form.save()
    focus = Photo.objects.get().image.focus
    assert (focus.x, focus.y) == (0.25, 0.666)
    assert len(shop.list()) == 1
    again = bound(None, instance=Photo.objects.get(), **{"image-focus-x": "25", "image-focus-y": "66.6"})
    assert again.changed_data == []
    emptied = bound(None, instance=Photo.objects.get(), **{"image-focus-x": "", "image-focus-y": ""})
    emptied.save()
    assert Photo.objects.get().image.focus is None


def test_a_new_file_comes_with_its_focal_point(shop: Library) -> None:
    row = bound(PNG, **{"image-focus-x": "0", "image-focus-y": "100"}).save()
    assert (row.image.focus.x, row.image.focus.y) == (0, 1)


@pytest.mark.parametrize(("x", "y"), [("25", ""), ("101", "5"), ("-1", "5"), ("nan", "5"), ("left", "5")])
def test_a_bad_focal_point_is_an_error_of_the_field(photo: Any, x: str, y: str) -> None:
    form = bound(None, instance=photo, **{"image-focus-x": x, "image-focus-y": y})
    assert "accepted: two numbers from 0 to 100" in form.errors["image"][0]
    assert photo.image.ident in form.as_p()  # the old image is shown again


def test_the_widget_shows_what_is_there(photo: Any) -> None:
    photo.image = photo.image.with_focus(0.25, 0.5)
    html = PhotoForm(instance=photo).as_p()
    assert f"/media/image/400x300/{photo.image.ident}.auto" in html
    assert 'width="120" height="80"' in html
    assert "background:url(data:image/png;base64," in html  # until the image is there
    assert 'name="image-focus-x" value="25"' in html
    assert 'name="image-focus-y" value="50"' in html
    assert 'name="image-clear"' in html
    assert "image_input.js" in str(PhotoForm(instance=photo).media)


def test_a_plain_widget_works_too(shop: Library) -> None:
    class Plain(PhotoForm):
        class Meta(PhotoForm.Meta):
            widgets = {"image": forms.FileInput}  # noqa: RUF012

    row = bound(PNG, form=Plain).save()
    assert row.image.width == 120
    kept = bound(None, form=Plain, instance=row)
    assert kept.changed_data == []
    assert kept.save().image == row.image


def test_a_disabled_field_keeps_its_image(photo: Any) -> None:
    class Disabled(PhotoForm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.fields["image"].disabled = True

    form = bound(JPG, "moon.jpg", instance=photo, form=Disabled, **{"image-focus-x": "1", "image-focus-y": "1"})
    before = photo.image
    assert form.changed_data == []
    assert form.save().image == before
