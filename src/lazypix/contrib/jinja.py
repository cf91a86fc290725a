"""Jinja2: what templates need of images, as functions and as filters. Needs no import of Jinja2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lazypix.catalog import Image
from lazypix.markup import Html, Tags
from lazypix.references import ImageReference

Picture = ImageReference | Mapping[str, Any] | Image


def helpers(tags: Callable[[], Tags]) -> dict[str, Callable[..., str]]:
    """Return `image_url`, `image_srcset`, `image_tag` and `picture_tag`, which take what `Tags`' methods take.

    The image may be a reference, its JSON value as an application keeps it, or what the library says of it. `tags`
    is called each time.
    """

    def image_url(image: Picture, transform: str = "full", **options: Any) -> str:
        return tags().src(reference_of(image), transform, **options)

    def image_srcset(image: Picture, transform: str = "full", **options: Any) -> str:
        return tags().srcset(reference_of(image), transform, **options)

    def image_tag(image: Picture, transform: str = "full", **options: Any) -> Html:
        return tags().img(reference_of(image), transform, **options)

    def picture_tag(image: Picture, transform: str = "full", **options: Any) -> Html:
        return tags().picture(reference_of(image), transform, **options)

    return {each.__name__: each for each in (image_url, image_srcset, image_tag, picture_tag)}


def install(environment: Any, tags: Callable[[], Tags]) -> None:
    """Give an environment the helpers: `{{ image_tag(photo, "300x", alt="A rose") }}`, `{{ photo|image_url }}`."""
    found = helpers(tags)
    environment.globals.update(found)
    environment.filters.update(found)


def reference_of(image: Picture) -> ImageReference:
    """Return the reference that is meant.

    Raises:
        BadRequest: it is none.
    """
    if isinstance(image, ImageReference):
        return image
    return image.reference() if isinstance(image, Image) else ImageReference.from_json(image)
