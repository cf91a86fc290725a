"""What the gallery keeps."""

from __future__ import annotations

from django.db import models

from lazypix.contrib.django.fields import LazypixField


class Photo(models.Model):
    """A picture with a title."""

    title = models.CharField(max_length=100)
    image = LazypixField()

    class Meta:
        """Newest first."""

        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.title
