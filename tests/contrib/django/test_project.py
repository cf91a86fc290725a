"""The project around the images: settings and their checks, processes, `manage.py lazypix`."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.template import Context, Template
from django.test.utils import override_settings
from tests.contrib.django import project
from tests.engine.pictures import encoded, quadrants

from lazypix import Library
from lazypix.contrib.django import configured
from lazypix.errors import SettingsError

project.begin()
from tests.contrib.django.shop.models import Paper, Photo  # noqa: E402

PNG = encoded(quadrants(120, 80))
PAGE = '{% load lazypix %}{% img photo.image "15x10" alt=photo.title %}'


# --- settings ----------------------------------------------------------------------------------------------------


def checked(tmp_path: Path, urls: str = "tests.contrib.django.urls", **more: Any) -> list[tuple[str, str]]:
    with override_settings(LAZYPIX={"data": tmp_path / "images", **more}, ROOT_URLCONF=urls):
        return [(str(m.id), str(m.msg)) for m in run_checks(tags=["lazypix"])]


def test_settings_that_are_right_are_not_remarked_upon(tmp_path: Path) -> None:
    assert checked(tmp_path) == []
    assert checked(tmp_path, base_url="https://cdn.example/media/") == []
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    ("more", "ident", "said"),
    [
        (
            {"dat": 1, "queue": "x"},
            "lazypix.E001",
            r"dat: there is no such setting(.|\n)*queue='x'|queue='x'(.|\n)*dat",
        ),
        ({"DATA": "x"}, "lazypix.E001", "DATA: there is no such setting"),
        (
            {"base_url": "https://cdn.example/images"},
            "lazypix.W005",
            "'/images', but our URLs are included at '/media'",
        ),
    ],
)
def test_wrong_settings_are_said_by_the_check(tmp_path: Path, more: dict[str, Any], ident: str, said: str) -> None:
    ((found, text),) = checked(tmp_path, **more)
    assert found == ident
    assert re.search(said, text), text


def test_settings_that_are_no_dictionary_are_said_by_the_check() -> None:
    with override_settings(LAZYPIX=["data"]):
        (message,) = run_checks(tags=["lazypix"])
        with pytest.raises(SettingsError, match="a list"):
            configured.library()
    assert (message.id, "a list" in message.msg) == ("lazypix.E001", True)


def test_secrets_are_not_said_by_the_check(tmp_path: Path) -> None:
    (message,) = checked(tmp_path, api_keys=["short secret"], nothing=1)
    assert "short secret" not in message[1]


def test_a_folder_that_cannot_be_is_said_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file")
    ((ident, text),) = checked(tmp_path)
    assert (ident, "is no folder" in text) == ("lazypix.E003", True)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written_into_is_said_by_the_check(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    ((ident, _),) = checked(tmp_path)
    tmp_path.chmod(0o700)
    assert ident == "lazypix.E003"


def test_a_project_that_says_nothing_is_warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with override_settings(LAZYPIX={}, ROOT_URLCONF="tests.contrib.django.bare"):
        assert [message.id for message in run_checks(tags=["lazypix"])] == ["lazypix.W002", "lazypix.W004"]


def test_images_may_be_served_by_somebody_else(tmp_path: Path) -> None:
    assert checked(tmp_path, urls="tests.contrib.django.bare", base_url="https://img.example") == []
    with override_settings(
        LAZYPIX={"data": tmp_path, "base_url": "https://img.example"}, ROOT_URLCONF="tests.contrib.django.bare"
    ):
        assert configured.addresses().url("a") == "https://img.example/image/a.auto"


# --- processes ---------------------------------------------------------------------------------------------------


def test_many_threads_open_one_library(tmp_path: Path) -> None:
    with override_settings(LAZYPIX={"data": tmp_path / "images", "jobs": "none"}):
        found: list[Library] = []
        start = threading.Barrier(8)

        def ask() -> None:
            start.wait(60)
            found.append(configured.library())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == 8
        assert len(set(map(id, found))) == 1


def test_changed_settings_open_another_library(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with override_settings(LAZYPIX={"data": tmp_path / name, "jobs": "none"}):
            assert configured.library().list() == []
            configured.library().add(PNG)


def test_pages_are_rendered_without_opening_the_library(tmp_path: Path) -> None:
    reference = {"ident": "a", "width": 30, "height": 20, "format": "png"}
    with override_settings(LAZYPIX={"data": tmp_path / "none"}):
        html = Template(PAGE).render(Context({"photo": Photo(title="<b>", image=reference)}))
    assert 'alt="&lt;b&gt;"' in html
    assert not (tmp_path / "none").exists()


# --- manage.py lazypix -------------------------------------------------------------------------------------------


@pytest.fixture
def manage(shop: Library, capfd: pytest.CaptureFixture[str]) -> Any:
    """A function that runs `manage.py lazypix …`, and returns what it wrote."""
    capfd.readouterr()

    def run(*arguments: str) -> str:
        call_command("lazypix", *arguments)
        return capfd.readouterr().out

    return run


def test_lazypix_runs_with_the_project_s_settings(shop: Library, manage: Any) -> None:
    image = shop.add(PNG, filename="sun.png")
    assert '"width": 120' in manage("info", image.ident, "--json")
    assert manage("url", image.ident, "60x40").strip() == f"/media/image/60x40/{image.ident}.auto"
    assert "sun.png" in manage("list")
    assert "sweep" in manage("help")


def test_settings_of_every_kind_reach_lazypix(tmp_path: Path, manage: Any) -> None:
    said = {
        "data": tmp_path, "presets": {"thumb": "20x20"}, "urls": "presets", "sidecars": True, "max_pixels": 10**6,
        "api_keys": ["k" * 20, "l" * 20], "replicas": [{"name": "far", "store": f"file://{tmp_path}/far"}],
    }  # fmt: skip
    with override_settings(LAZYPIX=said):
        shown = manage("config")
        assert manage("url", "a", "@thumb").strip() == "/media/image/20x20/a.auto"
    for expected in ("20x20", "far", "presets", "1000000"):
        assert expected in shown
    assert "k" * 20 not in shown


def test_pages_have_signed_links_and_presets_where_the_settings_say_so(tmp_path: Path) -> None:
    reference = {"ident": "a", "width": 300, "height": 200, "format": "png", "focus": [0.1, 0.2]}
    page = Template(PAGE.replace('"15x10"', '"@thumb"'))
    row = Photo(title="sun", image=reference)
    said = {"data": tmp_path / "none", "presets": {"thumb": "20x20,fit=cover"}, "url_keys": ["one:" + "k" * 40]}
    with override_settings(LAZYPIX={**said, "urls": "signed"}):
        signed = page.render(Context({"photo": row}))
        assert "expires" not in row.image.url("@thumb")
        assert len(row.image.url("@thumb", expires_s=600)) > len(row.image.url("@thumb"))
    with override_settings(LAZYPIX={**said, "urls": "open"}):
        unsigned = page.render(Context({"photo": row}))
    assert 'src="/media/image/20x20,fit=cover,gravity=0.1:0.2/a.auto"' in unsigned
    assert len(signed) > len(unsigned)
    assert not (tmp_path / "none").exists()


def test_what_fails_ends_the_command_with_its_code(manage: Any) -> None:
    with pytest.raises(SystemExit) as end:
        manage("info", "missing")
    assert end.value.code == 1
    with pytest.raises(SystemExit) as end:
        manage("no-such-command")
    assert end.value.code == 2


def test_wrong_settings_end_the_command(shop: Library) -> None:
    with override_settings(LAZYPIX={"nothing": 1}), pytest.raises(CommandError, match="no such setting"):
        call_command("lazypix", "list")


def test_orphans_are_what_no_row_names(shop: Library, manage: Any) -> None:
    library = configured.library()
    named = Photo.objects.create(image=PNG).image.ident
    paper = Paper.objects.create(picture=SimpleUploadedFile("sun.png", PNG)).picture.name
    left = library.add(PNG).ident
    replaced = Photo.objects.create(title="r", image=PNG).image.ident
    Photo.objects.filter(title="r").update(image=None)
    assert set(manage("orphans", "--older-than", "0").split()) == {left, replaced}
    assert manage("orphans") == ""  # they are young
    assert len(library.list()) == 4
    assert f"deleted {left}" in manage("orphans", "--delete", "--older-than=0")
    assert {image.ident for image in library.list()} == {named, paper[17:49]}


def test_orphans_of_many_pages_are_all_found(shop: Library, manage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazypix.contrib.django.orphans._PAGE", 2)
    library = configured.library()
    left = {library.add(PNG).ident for _ in range(5)}
    assert set(manage("orphans", "--older-than", "0").split()) == left
