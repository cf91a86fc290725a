"""The form field of an image: what lazypix refuses is said beside the field, before anything is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from lazypix.contrib.django.receiving import verify
from lazypix.contrib.django.values import NewImage, StoredImage
from lazypix.contrib.django.widgets import ImageInput, Posted
from lazypix.errors import BadTransform, LazypixError
from lazypix.tokens import Focal


class ImageFormField(forms.FileField):
    """Takes an uploaded image and a focal point; its value is what a `LazypixField` takes."""

    widget = ImageInput

    def clean(self, data: Any, initial: StoredImage | None = None) -> Any:
        posted = data if isinstance(data, Posted) else Posted(upload=data)
        if isinstance(posted.upload, StoredImage | NewImage):  # a disabled field's initial value
            return posted.upload
        upload = super().clean(posted.upload, initial)
        if not upload:
            return upload
        focus = self._focus(posted)
        if isinstance(upload, StoredImage):
            return replace(upload, reference=replace(upload.reference, focus=focus)) if posted.has_focus else upload
        return NewImage(upload, focus=focus)

    def to_python(self, data: Any) -> Any:
        upload = super().to_python(data)
        if upload is not None:
            try:
                verify(upload)
            except LazypixError as error:
                raise ValidationError(str(error), code=error.code) from error
        return upload

    def has_changed(self, initial: StoredImage | None, data: Any) -> bool:
        if not isinstance(data, Posted):
            return bool(super().has_changed(initial, data))
        if super().has_changed(initial, data.upload):
            return True
        return initial is not None and not self.disabled and data.has_focus and not data.shows(initial.focus)

    def bound_data(self, data: Any, initial: StoredImage | None) -> StoredImage | None:
        """Show a form again that had errors: the image is the old one, since browsers send no file twice."""
        if isinstance(data, Posted) and data.has_focus and isinstance(initial, StoredImage):
            try:
                return replace(initial, reference=replace(initial.reference, focus=self._focus(data)))
            except ValidationError:
                pass
        return initial

    def _focus(self, posted: Posted) -> Focal | None:
        try:
            return posted.focus()
        except (ValueError, BadTransform):
            raise ValidationError(
                f"The focal point {posted.x!r}, {posted.y!r} is not accepted; accepted: two numbers from 0 to 100, "
                "or nothing",
                code="bad_focus",
            ) from None
