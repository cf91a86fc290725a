"""Images in Django's templates: `{% load lazypix %}`. No query, and nothing of store or catalog is asked.

::

    {% img photo.image "300x200,fit=cover" alt=photo.title sizes="50vw" %}
    {% picture photo.image "300x200,fit=cover" alt="" class_="wide" %}
    {{ photo.image|lazypix_url:"300x200" }}
"""

from __future__ import annotations

from typing import Any

from django import template

from lazypix.contrib.django.values import StoredImage
from lazypix.markup import Html

register = template.Library()


@register.simple_tag
def img(image: StoredImage | None, transform: str = "full", *, alt: str, **attributes: Any) -> Html | str:
    """Write an `<img>` with width and height (with a `srcset` of `widths="300,600"`), or nothing for no image."""
    return "" if not isinstance(image, StoredImage) else image.img(transform, alt=alt, **_lists(attributes))


@register.simple_tag
def picture(image: StoredImage | None, transform: str = "full", *, alt: str, **attributes: Any) -> Html | str:
    """Write a `<picture>` with a source for each of `formats="avif,webp"`, or nothing when there is no image."""
    return "" if not isinstance(image, StoredImage) else image.picture(transform, alt=alt, **_lists(attributes))


@register.filter
def lazypix_url(image: StoredImage | None, transform: str = "full") -> str:
    """Return the address of a variant; empty when there is no image."""
    return "" if not isinstance(image, StoredImage) else image.url(transform)


def _lists(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return what a template tag was given, its lists read: templates have none of their own."""
    readers = {"widths": int, "formats": str}
    return {
        name: [readers[name](part.strip()) for part in value.split(",") if part.strip()]
        if name in readers and isinstance(value, str) else value
        for name, value in attributes.items()
    }  # fmt: skip
