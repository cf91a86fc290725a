"""What the admin shows."""

from __future__ import annotations

from django.contrib import admin
from tests.contrib.django.shop.models import Photo

from lazypix.contrib.django.admin import thumbnail


@admin.register(Photo)
class PhotoAdmin(admin.ModelAdmin):
    list_display = ("title", thumbnail("image"))
    fields = ("title", "image")
