"""The document's example as written, end to end: S3, memcached, Redis, a Celery worker, wheezy.web behind gunicorn."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.fleet.workers import Worker, celery
from tests.ports import free_port
from tests.programs import (
    ACCESS_KEY,
    PUBLIC_BUCKET,
    ROOT,
    SECRET_KEY,
    Program,
    listens,
    memcached,
    redis,
    running,
)
from tests.waiting import WAIT_S, until

from imagestorage.storage import S3ImageStorage, close
from lazypix.errors import AddressRefused, BadIdent, IdentTaken

PAGE = ROOT / "docs" / "how-to" / "imagestorage.md"
SOURCE = "'https://encrypted-tbn2.gstatic.com/images?q=tbn:ANd9GcQUIfplgoueTfSX1A3UnJtMEy0xMqJJ5ECirkASkw3xT7R81WrJ'"
RED, BLUE = (200, 30, 40), (20, 40, 190)
TASK = re.compile(r"Task imagestorage\.storage\.s3_store_image\[[0-9a-f-]{36}\] received")


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    """A picture that is red on the left and blue on the right."""
    made = Image.new("RGB", (width, height), RED)
    made.paste(BLUE, (width // 2, 0, width, height))
    written = io.BytesIO()
    made.save(written, kind)
    return written.getvalue()


def decoded(body: bytes) -> Image.Image:
    shown = Image.open(io.BytesIO(body))
    shown.load()
    return shown


def check_picture(body: bytes, size: tuple[int, int]) -> None:
    """The right size and kind, and the right colours in the right places."""
    shown = decoded(body)
    assert (shown.format, shown.mode, shown.size) == ("JPEG", "RGB", size)
    for x, colour in ((size[0] // 8, RED), (size[0] * 7 // 8, BLUE)):
        pixel = shown.getpixel((x, size[1] // 2))
        assert isinstance(pixel, tuple)
        assert max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= 8, (pixel, colour)


# --- what runs ---------------------------------------------------------------------------------------------------


class _Source(BaseHTTPRequestHandler):
    """Another server, with pictures."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        width, height = (int(side) for side in self.path.split("?")[0].strip("/").split(".")[0].split("x"))
        body = picture(width, height, "JPEG" if ".jpg" in self.path else "PNG")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """All that an application has around it."""

    folder: Path
    s3: Program
    broker: Program
    memcached: Program
    worker: Worker
    source: str
    """Where pictures are downloaded from."""
    asked: list[str]
    """What was downloaded."""

    @property
    def base_url(self) -> str:
        return f"http://{self.s3.address}/{PUBLIC_BUCKET}/"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "data": self.folder / "data",
            "outbound_allow": ("127.0.0.1",),
            "outbound_ports": (int(self.source.rpartition(":")[2]),),
            "fetch_deadline_s": WAIT_S,
        }

    def environment(self, **others: str) -> dict[str, str]:
        """What the application's processes are started with."""
        port = self.source.rpartition(":")[2]
        return environment(
            {
                "LAZYPIX_DATA": str(self.folder / "data"), "LAZYPIX_OUTBOUND_ALLOW": "127.0.0.1",
                "LAZYPIX_OUTBOUND_PORTS": port, "LAZYPIX_FETCH_DEADLINE_S": str(WAIT_S),
                "SHOP_BROKER": f"redis://{self.broker.address}/0",
                "SHOP_MEMCACHED": self.memcached.address, "SHOP_BUCKET": PUBLIC_BUCKET, "SHOP_BASE_URL": self.base_url,
                "SHOP_ACCESS_KEY": ACCESS_KEY, "SHOP_SECRET_KEY": SECRET_KEY, **others,
            }
        )  # fmt: skip

    def tasks(self) -> int:
        """How many tasks the worker has received, since it was started."""
        return len(TASK.findall(self.worker.log.read_text()))

    def storage(self, image_id: str | int, **settings: Any) -> S3ImageStorage:
        made = S3ImageStorage(image_id, "jpg")
        keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        made.configure(keys, PUBLIC_BUCKET, self.base_url, "/", **(self.settings | settings))
        made.configure_webengine("wheezy")
        return made


def environment(others: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything of lazypix, in which modules of the tests are found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAZYPIX_", "AWS_"))}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), kept.get("PYTHONPATH", "")]), **others}


@pytest.fixture(scope="module")
def shop(seaweedfs: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    asked: list[str] = []
    source = ThreadingHTTPServer(("127.0.0.1", 0), type("Source", (_Source,), {"asked": asked}))
    serving = threading.Thread(target=source.serve_forever)
    serving.start()
    with ExitStack() as stack:
        stack.callback(serving.join)
        stack.callback(source.server_close)
        stack.callback(source.shutdown)
        stack.callback(close)
        broker = stack.enter_context(redis(folder))
        others = {"SHOP_BROKER": f"redis://{broker.address}/0"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment(others).items():
                patch.setenv(name, value)
            worker = stack.enter_context(
                celery(
                    folder, "worker", "-c", "1", application="tests.imagestorage.shop_worker", jobs="server",
                    data=str(folder / "data"), store=f"s3://{PUBLIC_BUCKET}/?endpoint=http://{seaweedfs.address}&region=us-east-1",
                    store_access_key=ACCESS_KEY, store_secret_key=SECRET_KEY,
                )
            )  # fmt: skip
        yield Shop(
            folder=folder, s3=seaweedfs, broker=broker, memcached=stack.enter_context(memcached(folder)),
            worker=worker, source=f"http://127.0.0.1:{source.server_port}", asked=asked,
        )  # fmt: skip


@contextmanager
def pages(shop: Shop, *, log: Path | None = None, **others: str) -> Iterator[str]:
    """Run the application's pages under gunicorn; give their URL."""
    port = free_port()
    command = [
        "/usr/bin/env", "-i", *(f"{name}={value}" for name, value in shop.environment(**others).items()),
        sys.executable, "-W", "ignore", "-m", "gunicorn", "-w", "1", "--threads", "16", "-b", f"127.0.0.1:{port}",
        "--graceful-timeout", "5", "tests.imagestorage.shop_pages:application",
    ]  # fmt: skip
    log = log or shop.folder / f"pages-{port}.log"
    with running(command, port, listens, log=log):
        yield f"http://127.0.0.1:{port}"
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def both(shop: Shop) -> Iterator[tuple[str, str]]:
    """Two processes of the application."""
    with pages(shop) as one, pages(shop) as other:
        yield one, other


def fetch(url: str) -> httpx.Response:
    return httpx.get(url, timeout=WAIT_S)


def ask(page: str, target: str) -> httpx.Response:
    return fetch(f"{page}/pictures/{target}")


# --- the document ------------------------------------------------------------------------------------------------


def example(shop: Shop) -> str:
    """The document's example, with real values where it has placeholders; not a line more or less."""
    code: str = next(
        text for text in re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.DOTALL) if "store_origin" in text
    )
    for placeholder, value in {
        "'access_key': 'access_key'": f"'access_key': '{ACCESS_KEY}'",
        "'secret_key': 'secret_key'": f"'secret_key': '{SECRET_KEY}'",
        "\n    'testimagestorageforpippackage',": f"\n    '{PUBLIC_BUCKET}',",
        "'https://s3.eu-central-1.amazonaws.com/testimagestorageforpippackage/'": f"'{shop.base_url}'",
        "'127.0.0.1:11211'": f"'{shop.memcached.address}'",
        SOURCE: f"'{shop.source}/4100x2460.png?q=1'",
    }.items():
        assert code.count(placeholder) == 1, placeholder
        code = code.replace(placeholder, value)
    return code


def run_example(shop: Shop, image_id: str) -> list[Any]:
    script = shop.folder / "example.py"
    script.write_text(example(shop))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.imagestorage.run_document", str(script), image_id],
        cwd=shop.folder, env=shop.environment(), capture_output=True, text=True, timeout=2 * WAIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    values: list[Any] = json.loads(done.stdout)
    return values


def test_the_example_runs_as_written(shop: Shop) -> None:
    before = shop.tasks()
    *nothing, origin, answer = run_example(shop, "101")
    assert nothing == [None] * 3  # the three configure…
    assert origin == f"{shop.base_url}101/origin.jpg"
    check_picture(fetch(origin).raise_for_status().content, (4000, 2400))

    assert (answer["type"], answer["status"]) == ("wheezy.http.response.HTTPResponse", "200 OK")
    assert answer["headers"]["Content-Type"] == "image/jpeg"
    assert answer["headers"]["Cache-Control"] == "public, max-age=86400"
    body = base64.b64decode(answer["body"])
    check_picture(body, (167, 100))

    public = f"{shop.base_url}101/200x100.jpg"
    until(lambda: fetch(public).status_code == 200, WAIT_S, lambda: shop.worker.log.read_text())
    assert fetch(public).content == body
    assert shop.tasks() == before + 1

    *_, again, redirect = run_example(shop, "101")
    assert again == origin
    assert shop.asked.count("/4100x2460.png?q=1") == 1  # it was not downloaded again
    assert (redirect["type"], redirect["status"]) == ("wheezy.http.response.HTTPResponse", "301 Moved Permanently")
    assert redirect["headers"]["Location"] == public
    assert shop.tasks() == before + 1


def test_many_first_requests_at_two_processes_are_answered_at_once_and_one_task_stores(
    shop: Shop, both: tuple[str, str]
) -> None:
    shop.storage(102).store_origin(f"{shop.source}/900x600.jpg", "4000x4000")
    before, together = shop.tasks(), threading.Barrier(24)

    def first(number: int) -> httpx.Response:
        together.wait(WAIT_S)
        return ask(both[number % 2], "102?size=300x200")

    os.killpg(shop.worker.process.pid, signal.SIGSTOP)  # nothing is stored before all are answered
    try:
        with ThreadPoolExecutor(24) as clients:
            answers = list(clients.map(first, range(24)))
    finally:
        os.killpg(shop.worker.process.pid, signal.SIGCONT)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].headers["content-type"] == "image/jpeg"
    check_picture(answers[0].content, (300, 200))

    public = f"{shop.base_url}102/300x200.jpg"
    until(lambda: fetch(public).status_code == 200, WAIT_S, lambda: shop.worker.log.read_text())
    for page in both:
        later = ask(page, "102?size=300x200")
        assert (later.status_code, later.headers["location"]) == (301, public)
        assert later.headers["cache-control"] == "public, max-age=86400"
    stored = fetch(public).raise_for_status()
    assert (stored.content, stored.headers["content-type"]) == (answers[0].content, "image/jpeg")

    ask(both[0], "102?size=20x20")  # its task comes behind all that were sent before
    until(lambda: fetch(f"{shop.base_url}102/20x20.jpg").status_code == 200, WAIT_S)
    assert shop.tasks() == before + 2


def test_the_size_is_the_one_that_lazypix_knows(shop: Shop, both: tuple[str, str]) -> None:
    storage = shop.storage(103)
    storage.store_origin(f"{shop.source}/90x60.jpg", "4000x4000")
    assert ask(both[0], "103?size=500x500").status_code == 200
    public = f"{shop.base_url}103/500x500.jpg"
    until(lambda: fetch(public).status_code == 200, WAIT_S, lambda: shop.worker.log.read_text())
    library = storage._opened().library()
    (variant,) = library.variants("103")
    assert (variant.stem, variant.format, library.get("103").width) == ("500x500", "jpg", 90)
    stored = fetch(public).content
    assert library.variant("103", "500x500", format="jpg").body == stored
    check_picture(stored, (90, 60))  # never enlarged


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("no-such-image?size=200x100", 404, "no-such-image"),
        ("a.b?size=200x100", 400, "Bad ident 'a.b'; accepted: 1 to 128 of the characters A-Z a-z 0-9 _ -"),
        ("102?size=abc", 400, "size='abc' is not accepted; accepted: <width>x<height>"),
        ("102?size=0x0", 400, "width='0' is not accepted"),
        ("102", 400, "The requested URL has no size"),
        ("102?size=9000x9000", 400, "width=9000 is over the limit of 8192 pixels a side"),
    ],
)
def test_what_is_wrong_is_said_in_the_framework_s_own_answer(
    both: tuple[str, str], target: str, status: int, said: str
) -> None:
    answer = ask(both[1], target)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json()["status"] == "error"
    assert said in answer.json()["content"]


def test_without_memcached_all_is_answered_and_stored(shop: Shop) -> None:
    shop.storage(104).store_origin(f"{shop.source}/900x601.jpg", "4000x4000")
    with (
        memcached(shop.folder) as own,
        pages(shop, SHOP_MEMCACHED=own.address) as one,
        pages(shop, SHOP_MEMCACHED=own.address) as other,
    ):
        assert ask(one, "104?size=30x20").status_code == 200
        until(lambda: ask(other, "104?size=30x20").status_code == 301, WAIT_S)
        own.kill()
        before = shop.tasks()
        assert [ask(page, "104?size=30x20").status_code for page in (one, other)] == [301, 301]
        answers = [ask(page, "104?size=40x20") for page in (one, other, one, other)]
        assert {answer.status_code for answer in answers} <= {200, 301}
        check_picture(answers[0].content, (30, 20))
        for page in (one, other):
            until(lambda page=page: ask(page, "104?size=40x20").status_code == 301, WAIT_S)  # type: ignore[misc]
        assert before < shop.tasks() <= before + 2  # one of each process at most


def test_without_a_broker_the_image_is_answered(shop: Shop) -> None:
    shop.storage(105).store_origin(f"{shop.source}/900x602.jpg", "4000x4000")
    dead, log = f"redis://127.0.0.1:{free_port()}/0", shop.folder / "without-broker.log"
    with pages(shop, log=log, SHOP_BROKER=dead) as page:
        assert [ask(page, "105?size=30x20").status_code for _ in range(3)] == [200] * 3
    assert log.read_text().count("30x20 of 105 is not being stored: no task could be sent") == 1


# --- originals ---------------------------------------------------------------------------------------------------


def test_an_original_within_its_bounds_is_stored_as_it_came(shop: Shop) -> None:
    url = shop.storage(201).store_origin(f"{shop.source}/640x400.jpg", "4000x4000")
    assert url == f"{shop.base_url}201/origin.jpg"
    assert fetch(url).content == picture(640, 400, "JPEG")


def test_an_original_is_shrunk_into_its_bounds_and_of_the_format_that_its_name_says(shop: Shop) -> None:
    url = shop.storage(202).store_origin(f"{shop.source}/641x400.png", "320x320")
    check_picture(fetch(url).content, (320, 200))
    url = shop.storage(203).store_origin(f"{shop.source}/642x400.png", (None, 4000))
    check_picture(fetch(url).content, (642, 400))


def test_an_image_id_is_given_once(shop: Shop) -> None:
    storage, url = shop.storage(204), f"{shop.source}/643x400.jpg"
    together = threading.Barrier(4)

    def store(_: int) -> str:
        together.wait(WAIT_S)
        return storage.store_origin(url, "4000x4000")

    with ThreadPoolExecutor(4) as all_at_once:
        assert set(all_at_once.map(store, range(4))) == {f"{shop.base_url}204/origin.jpg"}
    with pytest.raises(IdentTaken, match="The ident 204 is taken; existing data is never replaced"):
        storage.store_origin(f"{shop.source}/644x400.jpg", "4000x4000")
    with pytest.raises(BadIdent, match="Bad ident 'a/b'"):
        shop.storage("a/b").store_origin(url, "4000x4000")


def test_an_original_is_not_downloaded_from_this_machine_unless_that_is_allowed(shop: Shop) -> None:
    asked = len(shop.asked)
    storage = shop.storage(205, outbound_allow=())
    with pytest.raises(AddressRefused, match="127"):
        storage.store_origin(f"{shop.source}/645x400.jpg", "4000x4000")
    assert len(shop.asked) == asked
