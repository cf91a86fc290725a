from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from tests.contrib.django import site  # noqa: F401

urlpatterns = [path("media/", include("lazypix.contrib.django.urls")), path("admin/", admin.site.urls)]
