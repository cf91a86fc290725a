"""The images' URLs: `path("media/", include("lazypix.contrib.django.urls"))`."""

from __future__ import annotations

from django.urls import path, re_path

from lazypix.contrib.django import views

app_name = "lazypix"
urlpatterns = [
    path("lazypix-assets/<str:name>", views.asset, name="asset"),
    re_path(r"^(?P<path>image/.*)$", views.image, name="image"),
]
