"""A CDN's hook is told which addresses changed their meaning."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.engine.pictures import jpg, noise
from tests.receiving import Receiver, receiving
from tests.waiting import until

from lazypix import Library
from lazypix.composition import make_runner, open_library
from lazypix.errors import SettingsError
from lazypix.jobs.runner import JobRunner
from lazypix.settings import Settings, load, shown
from lazypix.signing.messages import is_signed, secret_bytes
from lazypix.upkeep.cleaning import purge

PICTURE = jpg(noise(400, 300))
SECRET = "a-secret-of-24-characters-or-more"


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def settings(hook: Receiver, tmp_path: Path) -> Settings:
    given = {"data": tmp_path / "data", "purge_url": f"{hook.url}/hook?token=t0p", "callback_secret": SECRET}
    return load(given | {"base_url": "https://img.example", "undelete_s": 100}, {})


@pytest.fixture
def library(settings: Settings) -> Iterator[tuple[Library, JobRunner]]:
    with open_library(settings) as opened, make_runner(settings, opened) as runner:
        opened.add(PICTURE, ident="cat")
        opened.variant("cat", "100x80,fit=cover", format="webp")
        yield opened, runner


def told(hook: Receiver, number: int) -> list[str]:
    received = hook.wait_for(number)[number - 1]
    said = json.loads(received.body)
    assert (received.method, received.target) == ("POST", "/hook?token=t0p")
    assert (said["type"], said["ident"]) == ("image.purged", "cat")
    urls = said["urls"]
    assert isinstance(urls, list)
    return urls


EVERYTHING = [
    "https://img.example/image/cat.jpg",
    "https://img.example/image/cat.auto",
    "https://img.example/image/100x80,fit=cover/cat.webp",
    "https://img.example/image/100x80,fit=cover/cat.auto",
]


def test_deletion_undeletion_and_purge_are_told(library: tuple[Library, JobRunner], hook: Receiver) -> None:
    opened, _ = library
    opened.delete("cat")
    assert sorted(told(hook, 1)) == sorted(EVERYTHING)
    opened.undelete("cat")
    assert sorted(told(hook, 2)) == sorted(EVERYTHING)
    purge(opened, ident="cat")
    assert sorted(told(hook, 3)) == sorted(EVERYTHING)
    opened.delete("cat", for_good=True)
    assert set(told(hook, 4)) == {url for url in EVERYTHING if "100x80" not in url}
    until(lambda: "purge" not in opened.catalog.jobs.count())
    assert len(hook.requests) == 4


def test_links_that_do_not_expire_are_told_too(settings: Settings, hook: Receiver) -> None:
    keyed = settings.model_copy(update={"urls": "signed", "url_keys": (SecretStr("k1:" + "s" * 24),)})
    with open_library(keyed) as opened, make_runner(keyed, opened):
        opened.add(PICTURE, ident="cat")
        opened.variant("cat", "100x80,fit=cover", format="webp")
        links = [opened.url("cat"), opened.url("cat", "100x80,fit=cover", format="webp")]
        opened.delete("cat")
        urls = told(hook, 1)
        assert set(EVERYTHING) | set(links) <= set(urls)
        assert len(urls) == 2 * len(EVERYTHING)


def test_what_is_told_is_signed_and_told_again_until_it_is_taken(
    library: tuple[Library, JobRunner], hook: Receiver
) -> None:
    opened, _ = library
    hook.statuses += [503]
    opened.delete("cat")
    first, second = (hook.wait_for(number)[number - 1] for number in (1, 2))
    for received in (first, second):
        given = {name: received.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")}
        assert is_signed([secret_bytes(SECRET)], **given, body=received.body, now_s=time.time())
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_without_a_hook_there_are_no_jobs(tmp_path: Path) -> None:
    with Library.open(tmp_path) as library:
        library.add(PICTURE, ident="cat")
        library.delete("cat")
        assert library.catalog.jobs.find() == []


def test_a_hook_is_a_url_and_a_secret(settings: Settings) -> None:
    assert "t0p" not in str(shown(settings)) + repr(settings)
    with pytest.raises(SettingsError, match="purge_url"):
        load({"purge_url": "cdn.example"}, {})
