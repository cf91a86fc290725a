"""The gallery in the admin: thumbnails in the list, a preview and a focal point in the form."""

from __future__ import annotations

from django.contrib import admin

from gallery.models import Photo
from lazypix.contrib.django.admin import thumbnail


@admin.register(Photo)
class PhotoAdmin(admin.ModelAdmin):
    """Photos, as the admin shows them."""

    list_display = (thumbnail("image"), "title")
    list_display_links = ("title",)
