"""The images' URLs: `path("media/", include("lazypix.contrib.django.urls"))`.

`/remote/…`, for images of other servers, is among them while the setting `remote_hosts` is set.
"""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, path, re_path
from django.urls.resolvers import RegexPattern

from lazypix.contrib.django import configured, views


class _WhileShown(RegexPattern):
    """Matches while images of other servers are shown; else the project's own URLs are looked at."""

    def match(self, path: str) -> Any:
        """Return what `RegexPattern` does, or None."""
        found = super().match(path)
        return found if found and configured.shows_remote() else None


app_name = "lazypix"
urlpatterns = [
    path("lazypix-assets/<str:name>", views.asset, name="asset"),
    re_path(r"^(?P<path>image/.*)$", views.image, name="image"),
    # The same name: who guards the images by it guards those of other servers.
    URLPattern(_WhileShown(r"^(?P<path>remote/.*)$", is_endpoint=True), views.image, name="image"),
]
