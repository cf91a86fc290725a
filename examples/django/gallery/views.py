"""The gallery's page."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from gallery.models import Photo


def photos(request: HttpRequest) -> HttpResponse:
    """Show the newest fifty pictures: one query."""
    return render(request, "gallery/photos.html", {"photos": Photo.objects.all()[:50]})
