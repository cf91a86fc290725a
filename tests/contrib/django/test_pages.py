"""Pages with many images cost one query, and nothing of the library."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.template import Context, Template
from django.test import Client
from django.test.utils import CaptureQueriesContext
from tests.contrib.django import project
from tests.engine.pictures import encoded, quadrants

from lazypix import Library
from lazypix.contrib.django import configured
from lazypix.errors import BadTransform

project.begin()
from tests.contrib.django.shop.models import Photo  # noqa: E402

PNG = encoded(quadrants(120, 80))
PAGE = """{% load lazypix %}{% for photo in photos %}
{% img photo.image "60x40,fit=cover" alt=photo.title sizes="50vw" widths="30,60" %}
{% picture photo.image "60x40" alt="" class_="wide" formats="webp" %}
<a href="{{ photo.image|lazypix_url:'100x50' }}">{{ photo.image.width }}</a>
{% endfor %}"""


class Touched(Exception):
    pass


def refuse(*_: Any, **__: Any) -> Any:
    raise Touched


def guard(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    """Make every call to the library, its catalog, its store or its engine an error."""
    for part in (
        library,
        library.catalog,
        library.catalog.variants,
        library.store,
        library.backlog,
        library.originals,
    ):
        for name in dir(type(part)):
            if not name.startswith("_") and callable(getattr(type(part), name, None)):
                monkeypatch.setattr(part, name, refuse, raising=False)
    monkeypatch.setattr(configured, "library", refuse)


@pytest.fixture
def photos(shop: Library) -> list[Any]:
    image = shop.add(PNG).reference()
    return list(Photo.objects.bulk_create([Photo(title=f"n{n}", image=image) for n in range(50)]))


def test_fifty_thumbnails_cost_one_query_and_nothing_of_the_library(
    photos: list[Any], shop: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as guarded:
        guard(guarded, shop)
        with pytest.raises(Touched):
            shop.store.get("anything")
        with pytest.raises(Touched):
            shop.catalog.get("anything")
        with pytest.raises(Touched):
            configured.library()
        with CaptureQueriesContext(connection) as seen:
            html = Template(PAGE).render(Context({"photos": Photo.objects.all()}))
    assert len(seen) == 1
    assert html.count("<img") == 100
    assert html.count("<picture") == 50
    assert html.count(f'href="/media/image/100x50/{photos[0].image.ident}.auto"') == 50


def test_rows_without_an_image_write_nothing() -> None:
    html = Template(PAGE).render(Context({"photos": [Photo(title="none")]}))
    assert "<img" not in html
    assert '<a href="">' in html


def test_a_size_that_is_none_fails_as_the_template_s_author_should_see() -> None:
    reference = {"ident": "a", "width": 30, "height": 20, "format": "png"}
    page = Template('{% load lazypix %}{% img photo.image "60by40" alt="" %}')
    with pytest.raises(BadTransform, match="60by40"):
        page.render(Context({"photo": Photo(image=reference)}))


def test_the_admin_s_list_costs_no_query_for_each_thumbnail(photos: list[Any], shop: Library) -> None:
    from django.contrib.auth.models import User

    client = Client()
    client.force_login(User.objects.create_superuser("anna"))
    counts = []
    for number in (50, 5):
        Photo.objects.filter(pk__in=[photo.pk for photo in photos[number:]]).delete()
        with CaptureQueriesContext(connection) as seen:
            page = client.get("/admin/shop/photo/").content.decode()
        assert page.count('<img src="/media/image/80x80,fit=cover/') == number
        counts.append(len(seen))
    assert counts[0] == counts[1]
