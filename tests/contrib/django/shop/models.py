"""Models with images in all the ways in which models can be related."""

from __future__ import annotations

from django.db import models

from lazypix.contrib.django.fields import LazypixField


class Album(models.Model):
    name = models.CharField(max_length=20)


class Photo(models.Model):
    album = models.ForeignKey(Album, models.CASCADE, null=True, related_name="photos")
    title = models.CharField(max_length=20, unique=True, null=True, blank=True)
    image = LazypixField(null=True, blank=True)

    class Meta:
        ordering = ("pk",)


class Snapshot(Photo):
    """Has the same table, and sends signals of its own."""

    class Meta:
        proxy = True


class Cover(Photo):
    """Has a table of its own, with one more image."""

    back = LazypixField(null=True, blank=True)


class Portrait(models.Model):
    """Must have an image, which outlives it."""

    image = LazypixField(removes=False)


class Paper(models.Model):
    """As applications have it that know nothing of lazypix."""

    file = models.FileField(upload_to="papers", null=True)
    picture = models.ImageField(upload_to="pictures", width_field="wide", height_field="high", null=True)
    wide = models.IntegerField(null=True)
    high = models.IntegerField(null=True)


class Page(models.Model):
    """Is ordered by what may not be there, and has an image or not, as Django's own fields of text have it."""

    album = models.ForeignKey(Album, models.CASCADE, null=True)
    image = LazypixField(blank=True)

    class Meta:
        ordering = ("album__name",)
