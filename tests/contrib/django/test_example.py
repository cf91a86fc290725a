"""The example project with Django's own server, over HTTP."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.contrib.django import example
from tests.engine.pictures import RED, colour_at, encoded, looks_like, opened, quadrants
from tests.programs import Program

KILLED = """
import os, signal
from django.db import transaction
from gallery.management.commands.prepare import drawn
from gallery.models import Photo
with transaction.atomic():
    Photo.objects.create(title="lost", image=drawn(1))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Program]:
    with example.gallery(folder, pictures=3) as running:
        yield running


@pytest.fixture
def client(server: Program) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{server.address}", timeout=60) as opened_client:
        yield opened_client


def test_the_page_takes_one_query_and_its_thumbnails_are_what_it_says(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["gallery-queries"] == "1"
    found = re.findall(r'<img src="([^"]+)"[^>]* width="(\d+)" height="(\d+)"', page.text)
    assert len(found) == 3
    for address, width, height in found:
        answer = client.get(address, headers={"accept": "image/webp,image/*"})
        assert answer.headers["content-type"] == "image/webp"
        assert opened(answer.content).size == (int(width), int(height))


def test_an_image_goes_through_the_admin_to_a_crop_and_away(client: httpx.Client) -> None:
    login = client.get("/admin/login/")
    client.headers["referer"] = str(login.url)
    form = {"csrfmiddlewaretoken": client.cookies["csrftoken"], "username": "admin", "password": example.PASSWORD}
    assert client.post("/admin/login/?next=/admin/", data=form).status_code == 302
    token = {"csrfmiddlewaretoken": client.cookies["csrftoken"]}
    refused = client.post(
        "/admin/gallery/photo/add/", data={**token, "title": "x"}, files={"image": ("a.png", b"none")}
    )
    assert "Not an image" in refused.text
    point = {"image-focus-x": "0", "image-focus-y": "0"}
    upload = {"image": ("corners.png", encoded(quadrants(400, 200)))}
    added = client.post("/admin/gallery/photo/add/", data={**token, "title": "corners", **point}, files=upload)
    assert added.status_code == 302, added.text
    page = client.get("/").text
    (address,) = re.findall(r'<img src="([^"]+)"[^>]* alt="corners"', page)
    crop = opened(client.get(address.replace("240x160", "50x100")).content)
    assert looks_like([colour_at(crop, 0.5, 0.25)], [RED])  # the top left corner, and not the middle
    number = re.findall(
        r"/admin/gallery/photo/(\d+)/change/[^>]*>corners<", client.get("/admin/gallery/photo/").text
    )[-1]
    assert client.post(f"/admin/gallery/photo/{number}/delete/", data={**token, "post": "yes"}).status_code == 302
    assert client.get(address).status_code == 404


def test_there_are_no_orphans_and_no_migrations_are_missing(folder: Path) -> None:
    said = example.manage(folder, "lazypix orphans --older-than 0", "makemigrations --check --dry-run")
    assert said == "No changes detected\n"


def test_what_a_process_left_that_was_killed_before_the_commit_is_found(folder: Path) -> None:
    assert example.run(folder, example.code("check") + KILLED).returncode == -signal.SIGKILL
    said = example.manage(folder, "lazypix orphans --older-than 0 --delete", "lazypix orphans --older-than 0")
    assert re.fullmatch("deleted [0-9a-f]{32}\n", said)
