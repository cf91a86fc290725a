"""Fixtures for tests of the Django application."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contrib.django import project

from lazypix import Library

project.begin()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """The library of a project whose tables are made."""
    with project.running(tmp_path_factory.mktemp("shop")) as library:
        yield library


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> None:
    """No rows and no images are left of the test before."""
    from django.apps import apps
    from django.db import models

    if "shop" in request.fixturenames:
        library: Library = request.getfixturevalue("shop")
        for model in reversed([m for m in apps.get_app_config("shop").get_models() if not m._meta.proxy]):
            models.QuerySet(model)._raw_delete("default")
        for image in library.list(limit=1000):
            library.delete(image.ident)
