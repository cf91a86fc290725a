"""`manage.py prepare`: tables, pictures to look at, and somebody who may use the admin."""

from __future__ import annotations

import secrets
from typing import Any

import pyvips
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

from gallery.models import Photo


class Command(BaseCommand):
    """Makes everything that the gallery needs; what is there stays."""

    help = "Makes tables, pictures and a user `admin`."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take how many pictures there shall be."""
        parser.add_argument("--pictures", type=int, default=50)
        parser.add_argument("--password", help="of the user `admin`; without one it is made up and printed")

    def handle(self, *_: Any, pictures: int, password: str | None, **__: Any) -> None:
        """Do it."""
        call_command("migrate", verbosity=0)
        for number in range(Photo.objects.count(), pictures):
            Photo.objects.create(title=f"Picture {number + 1}", image=drawn(number))
        if not User.objects.filter(username="admin").exists():
            chosen = password or secrets.token_urlsafe(9)
            User.objects.create_superuser("admin", password=chosen)
            self.stdout.write(f"user admin, password {chosen}" if password is None else "user admin")
        self.stdout.write(f"{Photo.objects.count()} pictures; now: manage.py runserver")


def drawn(number: int) -> bytes:
    """Return a picture, each of another colour and shape, with a light circle left of the middle."""
    width, height = 600 + 40 * (number % 7), 400 + 50 * (number % 5)
    at = pyvips.Image.xyz(width, height)
    hue = (at[0] / width * 40 + number * 36) % 256
    light = ((at[0] - width / 4) ** 2 + (at[1] - height / 2) ** 2 < (height / 6) ** 2).ifthenelse(235, 150)
    picture = hue.bandjoin([at[1] / height * 120 + 100, light]).cast("uchar").copy(interpretation="hsv")
    return bytes(picture.colourspace("srgb").jpegsave_buffer(Q=85))
