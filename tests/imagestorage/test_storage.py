"""The façade in one process, on a real S3 server: what is asked, what is answered, what is stored, and by whom."""

from __future__ import annotations

import io
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import wheezy.http
from tests.engine import pictures as p
from tests.programs import ACCESS_KEY, PUBLIC_BUCKET, READER_KEY, SECRET_KEY, Program
from tests.waiting import WAIT_S, until

from imagestorage import storage as module
from imagestorage.storage import S3FileStorage, S3ImageStorage, s3_store_image
from lazypix import Library
from lazypix.errors import BadRequest, BadTransform, SettingsError, StoreFailed, UnknownImage
from lazypix.upkeep.reindexing import reindex

KEYS = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
JPG = p.jpg(p.quadrants())  # 120 by 80


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    module.close()


@pytest.fixture
def folder() -> str:
    """A part of the bucket that nobody else uses."""
    return f"/{uuid.uuid4().hex}/"


def fetch(url: str) -> httpx.Response:
    return httpx.get(url, timeout=WAIT_S)


Make = Callable[..., S3ImageStorage]


@pytest.fixture
def make(seaweedfs: Program, folder: str, tmp_path: Path) -> Make:
    """Makes a storage that is configured."""

    def storage(
        image_id: str | int, ext: str = "jpg", *, keys: dict[str, str] = KEYS, **settings: Any
    ) -> S3ImageStorage:
        made = S3ImageStorage(image_id, ext)
        url = f"http://{seaweedfs.address}/{PUBLIC_BUCKET}/"
        made.configure(keys, PUBLIC_BUCKET, url, folder, **({"data": tmp_path / "data"} | settings))
        made.configure_webengine("wheezy")
        return made

    return storage


@pytest.fixture
def public(seaweedfs: Program, folder: str) -> str:
    return f"http://{seaweedfs.address}/{PUBLIC_BUCKET}{folder}"


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What somebody else is told to store, who does not."""
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, "s3_store_image", lambda *given: told.append(given))
    return told


def library_of(storage: S3ImageStorage) -> Library:
    return storage._opened().library()


def added(storage: S3ImageStorage) -> S3ImageStorage:
    library_of(storage).add(JPG, ident=storage.image_id)
    return storage


def asked(storage: S3ImageStorage, size: Any = (60, 60)) -> Any:
    response = storage.get_requested_image(size)
    assert isinstance(response, wheezy.http.HTTPResponse)
    return response


def test_without_a_task_the_process_that_makes_a_size_stores_it(make: Make, public: str) -> None:
    storage = added(make(7))
    first = asked(storage, "/pictures?size=60x60")
    assert (first.status_code, dict(first.headers)["Content-Type"]) == (200, "image/jpeg")
    assert p.opened(b"".join(first.buffer)).size == (60, 40)
    until(lambda: fetch(f"{public}7/60x60.jpg").status_code == 200)
    later = asked(storage, (60, 60))
    assert (later.status_code, dict(later.headers)["Location"]) == (301, f"{public}7/60x60.jpg")
    assert fetch(f"{public}7/60x60.jpg").content == b"".join(first.buffer)


def test_a_task_is_told_ids_and_a_place_once_and_nothing_is_stored_meanwhile(
    make: Make, public: str, tasks: list[tuple[Any, ...]]
) -> None:
    storage = added(make(7))
    assert [asked(storage).status_code for _ in range(3)] == [200] * 3
    (told,) = tasks
    assert told[:3] == ("7", "jpg", "60x60")
    assert SECRET_KEY not in json.dumps(told)
    assert ACCESS_KEY not in json.dumps(told)
    assert library_of(storage).variants("7") == []
    assert s3_store_image(*json.loads(json.dumps(told))) == f"{public}7/60x60.jpg"
    assert asked(storage).status_code == 301
    assert len(tasks) == 1


def test_a_process_that_answers_needs_no_more_than_to_read(make: Make, tasks: list[tuple[Any, ...]]) -> None:
    added(make(7))
    reader = make(7, keys={"access_key": READER_KEY, "secret_key": SECRET_KEY})
    assert asked(reader).status_code == 200
    make(7)  # the last that this process was configured with, with which tasks are carried out
    s3_store_image(*tasks[0])
    assert asked(reader).status_code == 301


def test_what_was_put_in_the_task_s_place_may_fail(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(module, "s3_store_image", fail)
    storage = added(make(7))
    with caplog.at_level(logging.WARNING):
        assert [asked(storage).status_code for _ in range(2)] == [200, 200]
    assert [record.message for record in caplog.records if record.name == "imagestorage"] == [
        "60x60 of 7 is not being stored: no task could be sent (ConnectionError: nobody there)"
    ]


def test_a_deleted_image_is_nowhere_though_its_size_was_known(make: Make) -> None:
    storage = added(make(7))
    asked(storage)
    until(lambda: asked(storage).status_code == 301)
    library_of(storage).delete("7")
    assert asked(storage).status_code == 404


def test_a_broken_bucket_is_our_fault_and_worth_another_try(make: Make) -> None:
    storage = added(make(7))
    wrong = make(7, keys={"access_key": ACCESS_KEY, "secret_key": "another-secret"})
    answer = asked(wrong)
    assert (answer.status_code, dict(answer.headers)["Retry-After"]) == (503, "5")
    assert b"another-secret" not in b"".join(answer.buffer)
    assert asked(storage).status_code == 200


def test_a_format_is_that_of_the_extension(make: Make, public: str) -> None:
    added(make(7))
    webp = asked(make(7, "webp"))
    assert dict(webp.headers)["Content-Type"] == "image/webp"
    until(lambda: fetch(f"{public}7/60x60.webp").status_code == 200)
    asked(make(7, "JPEG"))
    until(lambda: fetch(f"{public}7/60x60.jpg").status_code == 200)
    with pytest.raises(BadTransform, match=r"ext='psd' is not accepted; accepted: jpg, png"):
        S3ImageStorage(7, "psd")


def test_redirects_lead_to_the_public_url_that_was_set(
    make: Make, seaweedfs: Program, folder: str, tmp_path: Path
) -> None:
    storage = added(make(7))
    asked(storage)
    until(lambda: asked(storage).status_code == 301)
    server = {"endpoint": f"http://{seaweedfs.address}", "region": "us-east-1"}
    storage.configure(KEYS | server, PUBLIC_BUCKET, "https://img.example/cdn/", folder, data=tmp_path / "data")
    assert dict(asked(storage).headers)["Location"] == f"https://img.example/cdn{folder}7/60x60.jpg"


def test_a_bucket_that_is_full_already_is_taken_over_by_reindex(make: Make, public: str, folder: str) -> None:
    storage = make("of-before")
    library = library_of(storage)
    library.store.put(f"{folder[1:]}of-before/origin.jpg", JPG)
    library.store.put(f"{folder[1:]}of-before/60x60.jpg", JPG)
    assert asked(storage).status_code == 404
    reindex(library)
    until(lambda: asked(storage).status_code == 301)
    assert dict(asked(storage).headers)["Location"] == f"{public}of-before/60x60.jpg"
    assert asked(storage, (30, 30)).status_code == 200


def test_a_worker_says_what_it_lacks(make: Make, tmp_path: Path) -> None:
    storage = make(7)
    place = storage._opened().place.to_json()
    with pytest.raises(UnknownImage, match=r"7.*; a worker needs the application's catalog \(LAZYPIX_CATALOG"):
        s3_store_image("7", "jpg", "60x60", place)
    with pytest.raises(SettingsError, match="This is no place of images"):
        s3_store_image("7", "jpg", "60x60", {"bucket": PUBLIC_BUCKET})
    added(make(7))
    make(7, keys={"access_key": READER_KEY, "secret_key": SECRET_KEY})
    with pytest.raises(StoreFailed, match="60x60 of 7 was made and could not be stored"):
        s3_store_image("7", "jpg", "60x60", place)


def test_a_worker_is_configured_by_the_same_call(
    make: Make, seaweedfs: Program, folder: str, tmp_path: Path, public: str
) -> None:
    place = added(make(7))._opened().place.to_json()
    module.close()
    module.configure(
        KEYS, PUBLIC_BUCKET, f"http://{seaweedfs.address}/{PUBLIC_BUCKET}", folder, data=tmp_path / "data"
    )
    assert s3_store_image("7", "jpg", "60x", place) == f"{public}7/60x.jpg"
    assert fetch(f"{public}7/60x.jpg").status_code == 200


def test_a_worker_goes_to_no_server_that_only_a_message_names(
    make: Make, tmp_path: Path, folder: str, seaweedfs: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make("of-settings")._opened().place.to_json()
    elsewhere = place | {"endpoint": "http://127.0.0.1:1"}
    with pytest.raises(SettingsError, match=r"does not know the bucket 'public': call storage\.configure\(…\)"):
        s3_store_image("of-settings", "jpg", "60x60", elsewhere)
    others = {
        "data": str(tmp_path / "data"), "store": f"s3://{PUBLIC_BUCKET}/?endpoint=http://{seaweedfs.address}",
        "store_access_key": ACCESS_KEY, "store_secret_key": SECRET_KEY,
    }  # fmt: skip
    for name, value in others.items():
        monkeypatch.setenv(f"LAZYPIX_{name.upper()}", value)
    storage = added(make("of-settings"))
    s3_store_image("of-settings", "jpg", "60x60", elsewhere)  # the bucket is known: it is stored where that is
    assert library_of(storage).store.head(f"{folder[1:]}of-settings/60x60.jpg").size > 0
    with pytest.raises(SettingsError, match="does not know the bucket 'secret'"):
        s3_store_image("of-settings", "jpg", "60x60", place | {"bucket": "secret"})


def test_what_is_not_configured_is_said(make: Make) -> None:
    with pytest.raises(SettingsError, match=r"call configure\(…\) first"):
        S3ImageStorage(7, "jpg").store_origin("https://a.example/b.jpg", "10x10")
    without_engine = S3ImageStorage(7, "jpg")
    without_engine._place = make(7)._opened()
    with pytest.raises(SettingsError, match=r"call configure_webengine\(…\) first"):
        without_engine.get_requested_image((1, 1))
    with pytest.raises(SettingsError, match="max_pixels"):
        make(7, max_pixels="many")


def test_configuring_again_opens_nothing_again(make: Make) -> None:
    assert library_of(make(7)) is library_of(make(8))
    assert library_of(make(7, max_side=100)) is not library_of(make(8))


# --- plain files -------------------------------------------------------------------------------------------------


@pytest.fixture
def files(seaweedfs: Program, folder: str, tmp_path: Path) -> S3FileStorage:
    made = S3FileStorage()
    url = f"http://{seaweedfs.address}/{PUBLIC_BUCKET}/"
    made.configure(KEYS, PUBLIC_BUCKET, url, folder, data=tmp_path / "data")
    return made


def test_a_file_is_stored_under_a_name_that_nobody_guesses_and_comes_back(
    files: S3FileStorage, public: str, tmp_path: Path
) -> None:
    report = tmp_path / "report of may.pdf"
    report.write_bytes(b"%PDF-1.7 report")
    one, other = files.store(report), files.store(str(report), "other.html")
    assert one != other
    token = one.removeprefix(public).split("/")[3]
    assert one == f"{public}{token[:3]}/{token[4:6]}/{token[7:9]}/{token}/report%20of%20may.pdf"
    assert len(token) == 20
    with report.open("rb") as opened:
        again = files.store(opened)
    for url in (one, other, again):
        assert fetch(url).raise_for_status().content == b"%PDF-1.7 report"


@pytest.mark.parametrize("name", ["", "/", ".hidden", "a\nb"])
def test_a_file_without_a_name_is_refused(files: S3FileStorage, name: str) -> None:
    with pytest.raises(BadRequest, match="is not accepted; accepted: a file's name"):
        files.store(io.BytesIO(b"x"), name)
