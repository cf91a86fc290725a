"""The client does what the library does, through a connection that breaks too."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from tests.client.flaky import Cut, Flaky, flaky
from tests.engine.pictures import encoded, jpg, noise, quadrants
from tests.ports import free_port
from tests.receiving import Received, receiving
from tests.server.running import Server, ask, nothing_stored, running
from tests.waiting import until

from lazypix import Client, Image, LazypixError, Library, Transform
from lazypix.catalog import Search
from lazypix.client.backoff import Backoff
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import (
    BadIdent,
    BadRequest,
    BadTransform,
    BadUpload,
    BrokenImage,
    Busy,
    IdentTaken,
    SettingsError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    UnknownImage,
    Unreachable,
    UnsupportedImage,
)

KEY = "a-key-of-16-chars"
PICTURE = jpg(quadrants(120, 90))
TURNED = io.BytesIO()
Pillow.open(io.BytesIO(PICTURE)).save(
    TURNED, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
)
LARGE = jpg(noise(900, 700))
PIECE = len(LARGE) // 6
Either = Library | Client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("client") / "data"
    with running(folder, api_keys=KEY, urls="open", undelete_s="3600", uploads="4") as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, KEY) as opened:
        yield opened


@pytest.fixture(params=["library", "client"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Either]:
    """The library itself, and the client of a server: what is asked of them is answered alike."""
    if request.param == "client":
        with Client(request.getfixturevalue("server").url, KEY) as client:
            yield client
    else:
        with Library.open(tmp_path / "library", engine=ThreadEngine(1), undelete_s=3600) as library:
            yield library


def slowly_counted(told: list[float]) -> Callable[[], Backoff]:
    """A backoff that does not wait, and tells for how long it would have."""
    return partial(Backoff, sleep=told.append)


# --- the same as the library ------------------------------------------------------------------------------------


def test_what_is_added_is_known_and_had_back(either: Either, tmp_path: Path) -> None:
    path = tmp_path / 'a "b"\\ ä.jpg'
    path.write_bytes(TURNED.getvalue())
    before = datetime.now(UTC)
    metadata = {"album": "ü", "deep": [1, {"x": None}], "n": 1.5}
    image = either.add(path, metadata=metadata)
    assert isinstance(image, Image)
    assert (image.width, image.height, image.format, image.filename) == (90, 120, "jpg", base(path.name))
    assert (image.probe.orientation, image.probe.width) == (6, 120)
    assert image.metadata == metadata
    assert before <= image.created <= datetime.now(UTC)
    assert either.get(image.ident) == image
    assert either.original(image.ident) == TURNED.getvalue()
    for source in (PICTURE, bytearray(PICTURE), memoryview(PICTURE), io.BytesIO(PICTURE)):
        assert either.add(source).sha256 == either.add(PICTURE).sha256
    assert either.add(PICTURE).filename is None
    scan = encoded(quadrants(), "tiff")  # which is read, and never written
    assert either.original(either.add(scan).ident) == scan


def base(name: str) -> str:
    """A name as it is kept: what stands behind the last slash of either kind."""
    return name.rpartition("\\")[2]


def test_variants_are_made_listed_and_dropped(either: Either) -> None:
    ident = either.add(PICTURE).ident
    made = either.variant(ident, "60x45,fit=cover", format="webp")
    assert (made.media_type, made.transform, made.image.ident) == (
        "image/webp", Transform.parse("60x45,fit=cover").with_format("webp"), ident
    )  # fmt: skip
    assert Pillow.open(io.BytesIO(made.body)).size == (60, 45)
    assert either.variant(ident, Transform.parse("20x")).media_type == "image/jpeg"
    until(lambda: len(either.variants(ident)) == 2)  # a server stores what it has delivered
    assert sorted(v.facts()["name"] for v in either.variants(ident)) == ["20x.jpg", "60x45,fit=cover.webp"]
    if isinstance(either, Client):
        assert either.purge(ident)[0] == 2
        assert either.variants(ident) == []


def test_deletion_and_its_undoing(either: Either) -> None:
    ident = either.add(PICTURE).ident
    either.delete(ident)
    for _ in range(2):
        with pytest.raises(UnknownImage):
            either.get(ident)
        with pytest.raises(UnknownImage):
            either.delete(ident)
    assert either.undelete(ident).ident == ident
    with pytest.raises(UnknownImage):
        either.undelete(ident)
    assert either.original(ident) == PICTURE
    either.delete(ident, for_good=True)
    with pytest.raises(UnknownImage):
        either.undelete(ident)
    with pytest.raises(IdentTaken):
        either.add(PICTURE, ident=ident)


def test_listing_and_search(either: Either) -> None:
    mark = f"m{time.time_ns()}"
    idents = [
        either.add(PICTURE, metadata={"mark": mark, "odd": bool(n % 2)}, filename=f"{n}.jpg").ident for n in range(5)
    ]
    ours = Search(metadata={"mark": mark})
    assert [image.ident for image in either.list(search=ours)] == idents[::-1]
    assert [image.ident for image in either.list(limit=2, search=ours)] == idents[:2:-1]
    assert [image.ident for image in either.list(limit=2, before=idents[3], search=ours)] == idents[2:0:-1]
    odd = Search(metadata={"mark": mark, "odd": True}, created_from=datetime(2020, 1, 1, tzinfo=UTC), smallest=1)
    assert [image.ident for image in either.list(search=odd)] == [idents[3], idents[1]]
    assert [image.ident for image in either.list(search=Search(filename="3", order="filename"), limit=1)]
    assert either.list(limit=0) == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda it: it.get("no/ident"), BadIdent),
        (lambda it: it.get("nothing"), UnknownImage),
        (lambda it: it.original("nothing"), UnknownImage),
        (lambda it: it.delete("nothing"), UnknownImage),
        (lambda it: it.variants("nothing"), UnknownImage),
        (lambda it: it.variant("nothing", "20x20"), UnknownImage),
        (lambda it: it.variant(it.add(PICTURE).ident, "20x20,fit=mad"), BadTransform),
        (lambda it: it.variant(it.add(PICTURE).ident, "9999x9999"), BadTransform),
        (lambda it: it.list(search=Search(order="mad")), BadRequest),  # type: ignore[arg-type]
        (lambda it: it.list(before="nothing"), UnknownImage),
        (lambda it: it.add(b""), BadUpload),
        (lambda it: it.add(PICTURE, ident="a/b"), BadIdent),
        (lambda it: it.add(PICTURE, metadata={"x": object()}), BadUpload),
        (lambda it: it.add(PICTURE, filename="a.png"), UnsupportedImage),
        (lambda it: it.add(b"text " * 30), UnsupportedImage),
        (lambda it: it.add(PICTURE[:-300] + b"\0" * 300), BrokenImage),
        (lambda it: it.url("a/b"), BadIdent),
        (lambda it: it.url("a", "0x"), BadTransform),
        (lambda it: it.add("no such file.jpg"), FileNotFoundError),
    ],
)  # fmt: skip
def test_errors_are_those_of_the_library(
    either: Either, call: Callable[[Either], object], error: type[Exception]
) -> None:
    with pytest.raises(error) as told:
        call(either)
    assert type(told.value) is error
    assert str(told.value)


def test_addresses_are_those_of_the_server(client: Client, server: Server) -> None:
    ident = client.add(PICTURE).ident
    address = client.url(ident, "40x30,fit=cover", format="png")
    assert address == f"{server.url}/image/40x30,fit=cover/{ident}.png"
    assert Pillow.open(io.BytesIO(ask("GET", address).content)).size == (40, 30)
    client.check()


def test_libvips_is_not_loaded_and_the_key_is_not_shown(server: Server) -> None:
    code = (
        "import sys, lazypix\n"
        f"client = lazypix.Client({server.url!r}, {KEY!r})\n"
        "image = client.add(sys.stdin.buffer)\n"
        "print(len(client.variant(image.ident, '30x20').body), repr(client))\n"
        "client.close()\n"
        "print([name for name in sys.modules if name.startswith(('pyvips', '_libvips', 'starlette', 'uvicorn'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=PICTURE, capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr.decode()
    size, shown, loaded = done.stdout.decode().replace("\n", " ").partition(" Client")
    assert int(size) > 100
    assert KEY not in done.stdout.decode()
    assert done.stdout.decode().endswith("[]\n"), (shown, loaded)


@pytest.mark.parametrize(
    "url", ["", "img.example", "ftp://img.example", "https://key@img.example", "https://a/?b=c", "http://[::1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        Client(url)


@pytest.mark.parametrize("url", ["ftp://me:secret@img.example", "me:secret@img.example", "https://a/?key=secret"])
def test_what_may_be_a_secret_in_an_address_is_not_told(url: str) -> None:
    with pytest.raises(SettingsError) as told:
        Client(url)
    assert "secret" not in str(told.value)


def test_a_key_that_is_none_is_refused_without_showing_it(server: Server) -> None:
    for key in ("", " x", "se\ncret", "schlüssel"):
        with pytest.raises(SettingsError) as told:
            Client(server.url, key)
        assert not key.strip() or key not in str(told.value)
    with Client(server.url, "another-key-of-16") as stranger, pytest.raises(Unauthorized):
        stranger.add(PICTURE)


# --- what breaks ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[Flaky]:
    with flaky(server.port) as opened:
        yield opened


@pytest.mark.parametrize(
    "cut", [Cut(way="there", after=0), Cut(way="there", after=3000), Cut(way="back", after=0), Cut(way="back", after=30)]
)  # fmt: skip
def test_an_upload_is_sent_again_and_stored_once(proxy: Flaky, client: Client, cut: Cut) -> None:
    before = len(client.list(limit=1000))
    proxy.cuts = [cut, cut]
    with Client(proxy.url, KEY, backoff=partial(Backoff, first_s=0.05)) as shaky:
        image = shaky.add(LARGE)
    assert client.original(image.ident) == LARGE
    assert len(client.list(limit=1000)) == before + 1


def test_a_taken_ident_is_no_success_of_ours(proxy: Flaky, client: Client) -> None:
    taken = client.add(PICTURE).ident
    with Client(proxy.url, KEY, backoff=partial(Backoff, first_s=0.05)) as shaky:
        with pytest.raises(IdentTaken):
            shaky.add(PICTURE, ident=taken)  # the same bytes, but stored by somebody else
        proxy.cuts = [Cut(way="there", after=100)]
        with pytest.raises(IdentTaken):
            shaky.add(LARGE, ident=taken)
    assert client.original(taken) == PICTURE


def test_a_deletion_is_sent_again_and_is_none_the_second_time(proxy: Flaky, client: Client) -> None:
    ident = client.add(PICTURE).ident
    for change in ("delete", "undelete", "delete"):
        proxy.cuts = [Cut(way="back", after=10)]  # of the answer: it is done, and nobody is told
        with Client(proxy.url, KEY, backoff=slowly_counted([])) as shaky:
            getattr(shaky, change)(ident)
    with pytest.raises(UnknownImage):
        client.get(ident)


def test_what_breaks_again_and_again_is_told(proxy: Flaky) -> None:
    waits: list[float] = []
    proxy.cuts = [Cut(way="there", after=0)] * 8
    with Client(proxy.url, KEY, backoff=slowly_counted(waits)) as shaky, pytest.raises(Unreachable):
        shaky.get("something")
    assert len(waits) == 7
    assert all(wait <= 0.2 * 2**number for number, wait in enumerate(waits))
    proxy.cuts = []
    with Client(f"http://127.0.0.1:{free_port()}", backoff=slowly_counted([])) as nowhere, pytest.raises(Unreachable):
        nowhere.check()


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    waits: list[float] = []
    backoff = Backoff(sleep=waits.append)
    backoff.wait(Busy("busy", retry_after_s=3))
    assert 3 <= waits[0] <= 3.2
    with pytest.raises(Busy):
        backoff.wait(Busy("busy", retry_after_s=600))
    with pytest.raises(UnknownImage):
        backoff.wait(UnknownImage("no"))


def test_a_large_original_goes_in_pieces_through_what_breaks(proxy: Flaky, client: Client) -> None:
    told: list[tuple[int, int]] = []
    proxy.cuts = [
        Cut(way="there", after=2 * PIECE),
        None,
        Cut(way="back", after=10),
        Cut(way="there", after=PIECE // 2),
    ]
    with Client(
        proxy.url, KEY, resumable_bytes=1000, piece_bytes=PIECE, backoff=partial(Backoff, first_s=0.05)
    ) as shaky:
        image = shaky.add(
            io.BytesIO(LARGE), filename="ä.jpg", metadata={"a": 1}, progress=lambda *numbers: told.append(numbers)
        )
    assert client.original(image.ident) == LARGE
    assert (image.filename, image.metadata) == ("ä.jpg", {"a": 1})
    assert told[0] == (0, len(LARGE))
    assert told[-1] == (len(LARGE), len(LARGE))
    assert [sent for sent, _ in told] == sorted({sent for sent, _ in told})


def test_progress_of_a_form_goes_forwards_only(proxy: Flaky) -> None:
    told: list[tuple[int, int]] = []
    proxy.cuts = [Cut(way="there", after=len(LARGE) // 2)]
    with Client(proxy.url, KEY, backoff=partial(Backoff, first_s=0.05)) as shaky:
        shaky.add(LARGE, progress=lambda *numbers: told.append(numbers))
    assert (told[0], told[-1]) == ((0, len(LARGE)), (len(LARGE), len(LARGE)))
    assert [sent for sent, _ in told] == sorted({sent for sent, _ in told})


def test_another_process_goes_on_with_what_is_noted(
    proxy: Flaky, client: Client, server: Server, tmp_path: Path
) -> None:
    notes, path = tmp_path / "uploads.json", tmp_path / "large.jpg"
    path.write_bytes(LARGE)
    options: dict[str, Any] = {"resumable_bytes": 1000, "piece_bytes": PIECE, "resume": notes}
    proxy.cuts = [Cut(way="there", after=3 * PIECE + 3000), *[Cut(way="there", after=0)] * 8]
    with Client(proxy.url, KEY, backoff=slowly_counted([]), **options) as first, pytest.raises(Unreachable):
        first.add(path)
    proxy.cuts = []
    kept = notes.read_text()
    (noted,) = json.loads(kept).values()
    headers = {"Tus-Resumable": "1.0.0", "Authorization": f"Bearer {KEY}"}
    at = int(ask("HEAD", f"{server.url}/files/{noted}", headers=headers).headers["upload-offset"])
    assert at >= 2 * PIECE
    told: list[int] = []
    with Client(proxy.url, KEY, **options) as second:
        image = second.add(path, progress=lambda sent, _: told.append(sent))
    assert told[1] >= at  # what was there was not sent again
    assert client.original(image.ident) == LARGE
    assert json.loads(notes.read_text()) == {}
    # The answer to the last piece was lost with its process: what is there is found. What is not is begun anew.
    for text, same in ((kept, True), (kept.replace(noted, "f" * 32), False)):
        notes.write_text(text)
        with Client(proxy.url, KEY, **options) as third:
            assert (third.add(path).ident == image.ident) is same


def test_pieces_that_are_no_image_are_refused_and_gone(client: Client, server: Server) -> None:
    with nothing_stored(server.data), Client(server.url, KEY, resumable_bytes=10, piece_bytes=100) as small:
        with pytest.raises(UnsupportedImage):
            small.add(b"text " * 100)
        with pytest.raises(TooLarge):
            small.add(b"\xff\xd8" + bytes(64 * 1024 * 1024))


def test_why_an_upload_was_refused_is_told_although_an_answer_was_lost(proxy: Flaky) -> None:
    for after in range(300, 1800, 150):  # among them the answer to the last piece
        proxy.cuts = [Cut(way="back", after=after)]
        with (
            Client(proxy.url, KEY, resumable_bytes=10, backoff=slowly_counted([])) as pieces,
            pytest.raises(UnsupportedImage),
        ):
            pieces.add(b"no image" * 100)


def test_a_server_that_is_none_is_told() -> None:
    with (
        receiving() as other,
        Client(other.url, backoff=slowly_counted([])) as client,
        pytest.raises(LazypixError, match="lazypix"),
    ):
        client.get("something")


@pytest.mark.parametrize("ask", [lambda c: c.get("a"), lambda c: c.list(), lambda c: c.variants("a")])
def test_json_that_is_not_lazypix_s_is_told(ask: Callable[[Client], object]) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: Received) -> None:
        body = b'{"status": "ok", "content": {"images": 5}}'
        handler.send_response(200)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with receiving() as other, Client(other.url, backoff=partial(Backoff, attempts=1)) as client:
        other.answer = answer
        with pytest.raises(Unreachable, match="not lazypix'"):
            ask(client)


def test_a_proxy_that_has_too_many_requests_is_asked_again() -> None:
    asked: list[object] = []

    def answer(handler: BaseHTTPRequestHandler, received: Received) -> None:
        asked.append(received)
        handler.send_response(429)
        handler.send_header("content-length", "0")
        handler.end_headers()

    with receiving() as other, Client(other.url, backoff=slowly_counted([])) as client:
        other.answer = answer
        with pytest.raises(TooManyRequests):
            client.get("a")
    assert len(asked) > 1


def test_every_error_is_told_as_the_server_told_it() -> None:
    """Whatever an error's class wants when it is made: it arrives with its class, its text and its wait."""
    kinds, todo = [], [LazypixError]
    while todo:
        todo += (found := todo.pop().__subclasses__())
        kinds += found
    with receiving() as other, Client(other.url, backoff=partial(Backoff, attempts=1)) as client:

        def answer(handler: BaseHTTPRequestHandler, _: Received) -> None:
            body = json.dumps({"status": "error", "content": f"about {kind.code}"}).encode()
            handler.send_response(kind.status)
            for name, value in (
                ("lazypix-error", kind.code),
                ("retry-after", "7"),
                ("content-length", str(len(body))),
            ):
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        other.answer = answer
        for kind in (kind for kind in kinds if kind.__module__ == "lazypix.errors"):
            with pytest.raises(kind, match=f"about {kind.code}") as told:
                client.get("something")
            assert type(told.value) is kind
            assert told.value.retry_after_s == 7
