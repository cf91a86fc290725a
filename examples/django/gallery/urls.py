"""The gallery, its admin, and its images."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from gallery import views

urlpatterns = [
    path("", views.photos, name="photos"),
    path("admin/", admin.site.urls),
    path("media/", include("lazypix.contrib.django.urls")),
]
