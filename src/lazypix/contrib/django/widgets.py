"""The widget of an image: preview, file, focal point. All of it works without JavaScript; with it, a click does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.urls import NoReverseMatch, reverse

from lazypix.contrib.django.values import StoredImage
from lazypix.tokens import Focal

PREVIEW = "400x300"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What a form brought: the file (None: none; False: to be cleared), and the focal point as it was typed.

    `x` and `y` are per cent, from left and top.
    """

    upload: Any
    x: str | None = None
    y: str | None = None

    @property
    def has_focus(self) -> bool:
        """Whether the form has fields for the focal point."""
        return self.x is not None and self.y is not None

    def focus(self) -> Focal | None:
        """Return the focal point; None: it was left empty.

        Raises:
            ValueError, BadTransform: it is none.
        """
        if not self.x and not self.y:
            return None
        return Focal(x=_fraction(self.x), y=_fraction(self.y))

    def shows(self, focus: Focal | None) -> bool:
        """Tell whether this is what the form showed."""
        return (self.x, self.y) == _percents(focus)


class ImageInput(forms.ClearableFileInput):
    """A file, a preview of the image that is there, and numbers for its focal point."""

    template_name = "lazypix/image_input.html"

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        super().__init__({"accept": "image/*", **(attrs or {})})

    @property
    def media(self) -> forms.Media:
        """Script and style come from our own URLs, so that nothing has to be collected.

        A project that does not include them does without.
        """
        try:
            paths = [
                reverse("lazypix:asset", kwargs={"name": name}) for name in ("image_input.js", "image_input.css")
            ]
        except NoReverseMatch:
            return forms.Media()
        return forms.Media(js=paths[:1], css={"all": paths[1:]})

    def is_initial(self, value: object) -> bool:
        return isinstance(value, StoredImage)

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(name, value, attrs)
        image = value if isinstance(value, StoredImage) else None
        x, y = _percents(image.focus if image is not None else None)
        context["widget"] |= {
            "image": image,
            "preview": PREVIEW,
            "focus_names": _focus_names(name),
            "x": x,
            "y": y,
        }
        return context

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Posted:
        x, y = (data.get(each) for each in _focus_names(name))
        return Posted(upload=super().value_from_datadict(data, files, name), x=x, y=y)

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        omitted = super().value_omitted_from_data(data, files, name)
        return bool(omitted) and not any(each in data for each in _focus_names(name))


def _focus_names(name: str) -> tuple[str, str]:
    return f"{name}-focus-x", f"{name}-focus-y"


def _fraction(percent: str | None) -> float:
    return float((percent or "").replace(",", ".")) / 100


def _percents(focus: Focal | None) -> tuple[str, str]:
    return ("", "") if focus is None else (_percent(focus.x), _percent(focus.y))


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.2f}".rstrip("0").rstrip(".")
