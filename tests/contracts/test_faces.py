"""One contract for all faces: the same requests get the same status, headers and bytes, whatever is around the library.

Each face has a copy of one library, so that what has to be made is made by every one of them.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.contrib.django.example import gallery
from tests.contrib.serving import BARE, PREFIXES, serving
from tests.engine.pictures import BLUE, GREEN, RED, encoded, film, jpg, noise, quadrants, see_through
from tests.ports import free_port
from tests.receiving import Received, Receiver, receiving
from tests.server.running import RawAnswer, read_answer, running

from lazypix import Library
from lazypix.addresses import Addresses
from lazypix.dialects.remote import remote_address
from lazypix.gate import Gate
from lazypix.outbound.downloading import Downloader
from lazypix.outbound.rules import Rules
from lazypix.signing.links import KeyRing

URL_KEYS = "new:" + "n" * 40 + ",old:" + "o" * 40
SITE_PORT = free_port()
SITE = f"http://127.0.0.1:{SITE_PORT}"
"""Another server, whose images are shown."""
SETTINGS = {
    "url_keys": URL_KEYS, "jobs": "none", "remote_hosts": "127.0.0.1,photos.example", "remote_ttl_s": "3600",
    "outbound_allow": "127.0.0.1", "outbound_ports": str(SITE_PORT), "fetch_deadline_s": "60",
}  # fmt: skip
LONG_AGO = "Sat, 01 Jan 2000 00:00:00 GMT"
FACES = ("flask", "fastapi", "asgi", "wheezy", *BARE, "django")


@contextmanager
def _lazypix(data: Path) -> Iterator[str]:
    with running(data, **SETTINGS) as server:
        yield server.url


@contextmanager
def _django(data: Path) -> Iterator[str]:
    with gallery(
        data.parent, pictures=0, **{f"LAZYPIX_{name.upper()}": value for name, value in SETTINGS.items()}
    ) as program:
        yield f"http://127.0.0.1:{program.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A face that answers: its address, and the path before `/image/`."""

    url: str
    prefix: str = ""

    def ask(self, method: str, target: str, *headers: str) -> RawAnswer:
        """Send a target as it is, on a connection of its own."""
        address = urlsplit(self.url)
        lines = [f"{method} {self.prefix}{target} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=60) as connection:
            connection.sendall("\r\n".join(lines).encode("latin-1"))
            return read_answer(connection, method)


@pytest.fixture(scope="module")
def site() -> Iterator[Receiver]:
    """The other server, with two pictures and a page."""
    pages = {"/known.jpg": jpg(quadrants(90, 60)), "/new.jpg": jpg(quadrants(60, 90)), "/page": b"<html>"}

    def answer(handler: BaseHTTPRequestHandler, request: Received) -> None:
        body = pages.get(request.target)
        handler.send_response(404 if body is None else 200)
        handler.send_header("Content-Length", str(len(body or b"")))
        handler.end_headers()
        handler.wfile.write(body or b"")

    with receiving(port=SITE_PORT) as receiver:
        receiver.answer = answer
        yield receiver


@pytest.fixture(scope="module")
def prepared(site: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with some images, and some of their variants; one image is the other server's."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    downloader = Downloader(Rules.of(["127.0.0.1"], ports=[site.port]), total_s=60)
    with Library.open(folder, downloader=downloader, remote_hosts=["127.0.0.1"]) as library:
        library.remote(f"{SITE}/known.jpg")
        library.add(jpg(quadrants(400, 300)), ident="photo", filename='a "rosé".jpg')
        library.add(encoded(noise(800, 700)), ident="large")
        library.add(encoded(see_through()), ident="clear")
        library.add(film((RED, GREEN, BLUE)), ident="film")
        library.add(encoded(quadrants(), "tiff"), ident="scan")
        library.add(jpg(quadrants(60, 40)), ident="gone")
        library.delete("gone")
        for transform in ("200x", "100x100,fit=cover"):
            library.variant("photo", transform, format="jpg")
    return folder


@pytest.fixture(scope="module")
def faces(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Face]]:
    """All faces, started at once; `server` is our own."""
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:

        def start(name: str) -> Face:
            data = tmp_path_factory.mktemp(name) / ("images" if name == "django" else "data")
            shutil.copytree(prepared, data)
            special = {"server": _lazypix, "django": _django}
            url = stack.enter_context(special[name](data) if name in special else serving(name, data, **SETTINGS))
            return Face(url=url, prefix={"django": "/media", **PREFIXES}.get(name, ""))

        started = {name: pool.submit(start, name) for name in ("server", *FACES)}
        yield {name: each.result() for name, each in started.items()}


def _links() -> dict[str, str]:
    """Links as an application gives them out, and what people make of them."""
    ring = KeyRing.of(URL_KEYS.split(","))
    addresses = Addresses(gate=Gate(ring=ring))
    past = Addresses(gate=Gate(ring=ring, clock=lambda: 1_000_000_000))
    old = Addresses(gate=Gate(ring=KeyRing.of(URL_KEYS.split(",")[1:])))
    # For longer than images are cached for, so that `max-age` is the same however late this link is asked for.
    good = addresses.url("photo", "120x90,fit=cover,gravity=0.3:0.7", format="jpg", expires_s=30 * 86_400)
    box = addresses.url("photo", "64x64,fit=cover", format="jpg", scope="100x100")
    return {
        "signed": good,
        "signed for ever": addresses.url("photo", "121x", scope="exact"),
        "signed with the old key": old.url("photo", "122x", format="png", scope="exact"),
        "signed for a box": box,
        "another size in the box": box.replace("64x64", "90x80"),
        "a size over the box": box.replace("64x64", "101x80"),
        "expired": past.url("photo", "120x", format="jpg", expires_s=60),
        "tampered path": good.replace("120x90", "121x90"),
        "tampered ident": good.replace("photo", "large"),
        "tampered signature": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "tampered expiry": good.replace("s=new.", "s=new.1"),
        "an unknown key": good.replace("s=new.", "s=other."),
        "signed, and written otherwise": good.replace("?", "?&"),
    }


def _remote(path: str, transform: str, format: str | None = None) -> str:
    return remote_address(f"{SITE}{path}", transform, format)


def _remote_link() -> str:
    addresses = Addresses(gate=Gate(ring=KeyRing.of(URL_KEYS.split(","))))
    return addresses.of_target(_remote("/known.jpg", "41x31,fit=cover", "jpg"), expires_s=30 * 86_400)


LINKS = _links()
WEBP = "Accept: image/avif;q=0.1, image/webp"
REMOTE_LINK = _remote_link()
TABLE: dict[str, tuple[str, ...]] = {
    # what is stored, and what is made now
    "stored": ("GET", "/image/200x/photo.jpg"),
    "stored, from memory": ("GET", "/image/200x/photo.jpg"),
    "stored, cropped": ("GET", "/image/100x100,fit=cover/photo.jpg"),
    "made": ("GET", "/image/64x48,fit=cover,gravity=0.3:0.7/photo.png"),
    "made, animated": ("GET", "/image/20x/film.webp"),
    "made, transparent": ("GET", "/image/30x/clear.png"),
    "made, on a colour": ("GET", "/image/30x,background=red/clear.jpg"),
    "original": ("GET", "/image/photo.jpg"),
    "original, large": ("GET", "/image/large.png"),
    "original, of a format that is not made": ("GET", "/image/scan.tiff"),
    # grammars
    "native query": ("GET", "/image/photo.png?width=50&height=40&fit=cover"),
    "imageserver": ("GET", "/image/photo.jpg?width=50&height=0"),
    "imageserver, cut off": ("GET", "/image/photo.jpg?width=50&height=<20"),
    "imageserver, quoted": ("GET", "/image/photo.jpg?width=50&height=%3C20"),
    "imageserver, path": ("GET", "/image/50/40/photo.jpg"),
    "imageserver, path, cut off": ("GET", "/image/50/<20/photo.jpg"),
    "imageserver, path, quoted": ("GET", "/image/50/%3c20/photo.jpg"),
    "quoted letters": ("GET", "/image/%32%30%30x/p%68oto.jpg"),
    "quoted comma and equals sign": ("GET", "/image/100x100%2Cfit%3Dcover/photo.jpg"),
    "quoted slash": ("GET", "/image/200x%2Fphoto.jpg"),
    "plus in the query": ("GET", "/image/photo.jpg?width=+50"),
    # conditions
    "etag": ("GET", "/image/200x/photo.jpg", "If-None-Match: {etag}"),
    "weak etag among others": ("GET", "/image/200x/photo.jpg", 'If-None-Match: "x", W/{etag}'),
    "other etag": ("GET", "/image/200x/photo.jpg", 'If-None-Match: "x"'),
    "any etag": ("GET", "/image/200x/photo.jpg", "If-None-Match: *"),
    "etag of what was never made": ("GET", "/image/33x/photo.jpg", "If-None-Match: *"),
    "date": ("GET", "/image/200x/photo.jpg", "If-Modified-Since: {date}"),
    "older date": ("GET", "/image/200x/photo.jpg", f"If-Modified-Since: {LONG_AGO}"),
    "date, and an etag that counts": ("GET", "/image/200x/photo.jpg", "If-Modified-Since: {date}", 'If-None-Match: "x"'),
    "match": ("GET", "/image/200x/photo.jpg", "If-Match: {etag}"),
    "no match": ("GET", "/image/200x/photo.jpg", 'If-Match: "x"'),
    "modified since": ("GET", "/image/200x/photo.jpg", f"If-Unmodified-Since: {LONG_AGO}"),
    # ranges
    "range": ("GET", "/image/200x/photo.jpg", "Range: bytes=10-99"),
    "range to the end": ("GET", "/image/large.png", "Range: bytes=1000-"),
    "range of a file": ("GET", "/image/large.png", "Range: bytes=1000-300000"),
    "last bytes": ("GET", "/image/large.png", "Range: bytes=-10"),
    "range behind the end": ("GET", "/image/200x/photo.jpg", "Range: bytes=99999999-"),
    "several ranges": ("GET", "/image/200x/photo.jpg", "Range: bytes=0-1,5-6"),
    "no range": ("GET", "/image/200x/photo.jpg", "Range: lines=1-2"),
    "range of the same": ("GET", "/image/200x/photo.jpg", "Range: bytes=0-9", "If-Range: {etag}"),
    "range of another": ("GET", "/image/200x/photo.jpg", "Range: bytes=0-9", 'If-Range: "x"'),
    # HEAD
    "head": ("HEAD", "/image/200x/photo.jpg"),
    "head, made": ("HEAD", "/image/34x/photo.jpg"),
    "head, large": ("HEAD", "/image/large.png"),
    "head, unknown": ("HEAD", "/image/200x/nobody.jpg"),
    # negotiation
    "negotiated": ("GET", "/image/80x/photo", WEBP),
    "negotiated, auto": ("GET", "/image/80x/photo.auto", "Accept: */*"),
    "negotiated, no header": ("GET", "/image/80x/photo.auto"),
    "negotiated, png only": ("GET", "/image/80x/photo.auto", "Accept: image/png"),
    "negotiated, unchanged": ("GET", "/image/80x/photo.auto", WEBP, "If-None-Match: *"),
    "negotiated, animated": ("GET", "/image/20x/film.auto", "Accept: image/avif, image/webp, */*"),
    # refusals
    "unknown image": ("GET", "/image/200x/nobody.jpg"),
    "deleted image": ("GET", "/image/30x/gone.jpg"),
    "no ident": ("GET", "/image/200x/no%20body.jpg"),
    "unknown option": ("GET", "/image/200x,blur=3/photo.jpg"),
    "unknown format": ("GET", "/image/200x/photo.doc"),
    "too large": ("GET", "/image/99999x/photo.jpg"),
    "not its format": ("GET", "/image/photo.tiff"),
    "double slash": ("GET", "/image//200x/photo.jpg"),
    "slash at the end": ("GET", "/image/200x/photo.jpg/"),
    "nothing": ("GET", "/image/"),
    "dots": ("GET", "/image/../image/200x/photo.jpg"),
    "not UTF-8": ("GET", "/image/200x/%ff.jpg"),
    "not quoted": ("GET", "/image/200x/%zz.jpg"),
    "put": ("PUT", "/image/200x/photo.jpg", "Content-Length: 0"),
    "delete": ("DELETE", "/image/200x/photo.jpg"),
    "options": ("OPTIONS", "/image/200x/photo.jpg"),
    # images of other servers
    "remote": ("GET", _remote("/known.jpg", "40x30,fit=cover", "webp")),
    "remote, from memory": ("GET", _remote("/known.jpg", "40x30,fit=cover", "webp")),
    "remote, downloaded now": ("GET", _remote("/new.jpg", "40x30", "png")),
    "remote, downloaded before": ("GET", _remote("/new.jpg", "41x31", "png")),
    "remote, original": ("GET", _remote("/known.jpg", "full", "jpg")),
    "remote, not quoted": ("GET", f"/remote/20x.jpg?url={SITE}/known.jpg"),
    "remote, quoted comma": ("GET", _remote("/known.jpg", "40x30,fit=cover", "webp").replace(",", "%2C")),
    "remote, quoted place": ("GET", _remote("/known.jpg", "20x", "jpg").replace("remote", "%72emote")),
    "remote, negotiated": ("GET", _remote("/known.jpg", "20x"), WEBP),
    "remote, etag": ("GET", _remote("/known.jpg", "20x", "jpg"), "If-None-Match: {remote}"),
    "remote, other etag": ("GET", _remote("/known.jpg", "20x", "jpg"), 'If-None-Match: "x"'),
    "remote, range": ("GET", _remote("/known.jpg", "20x", "jpg"), "Range: bytes=10-99"),
    "remote, head": ("HEAD", _remote("/known.jpg", "40x30,fit=cover", "webp")),
    "remote, signed": ("GET", REMOTE_LINK),
    "remote, tampered": ("GET", REMOTE_LINK.replace("41x31", "42x31")),
    "remote, another host": ("GET", "/remote/20x.jpg?url=https%3A%2F%2Fother.example%2Fa.jpg"),
    "remote, another port": ("GET", "/remote/20x.jpg?url=https%3A%2F%2Fphotos.example%3A22%2Fa.jpg"),
    "remote, missing there": ("GET", _remote("/missing.jpg", "20x", "jpg")),
    "remote, no image": ("GET", _remote("/page", "20x", "jpg")),
    "remote, no url": ("GET", "/remote/20x.jpg"),
    "remote, wrong size": ("GET", _remote("/known.jpg", "20x", "jpg").replace("20x", "20by20")),
    "remote, too large": ("GET", _remote("/known.jpg", "99999x", "jpg")),
    "remote, double slash": ("GET", _remote("/known.jpg", "20x", "jpg").replace("/20x", "//20x")),
    "remote, nothing": ("GET", "/remote/"),
    "remote, post": ("POST", _remote("/known.jpg", "20x", "jpg"), "Content-Length: 0"),
    "remote, options": ("OPTIONS", _remote("/known.jpg", "20x", "jpg")),
    # links
    **{what: ("GET", target) for what, target in LINKS.items()},
    "signed, head": ("HEAD", LINKS["signed"]),
    "expired, though unchanged": ("GET", LINKS["expired"], "If-None-Match: *"),
}  # fmt: skip
# Django's development server is the standard library's, which does not tell the path as it was received.
UNTOLD = {"django": {"quoted slash", "not UTF-8", "remote, quoted place"}}
EXPECTED_STATUSES = {200, 204, 206, 304, 400, 403, 404, 405, 412, 415, 416}
_OF_THE_SERVER = {"date", "server", "connection", "keep-alive", "via"}
# To our server one can write, too.
_OF_WRITING = {"access-control-allow-methods", "access-control-allow-headers"}
# Each face has an image of its own of it.
_DOWNLOADED = {"remote, downloaded now", "remote, downloaded before"}
_OF_THE_IMAGE = {"etag", "last-modified"}


@pytest.fixture(scope="module")
def answers(faces: dict[str, Face]) -> dict[str, dict[str, RawAnswer]]:
    """What every face answered, all of them at once, each asked in the table's order."""
    first = faces["server"].ask("GET", "/image/200x/photo.jpg").headers
    remote = faces["server"].ask("GET", _remote("/known.jpg", "20x", "jpg")).headers
    known = {"etag": first["etag"], "date": first["last-modified"], "remote": remote["etag"]}

    def ask_all(face: Face) -> dict[str, RawAnswer]:
        return {
            what: face.ask(method, target, *(header.format(**known) for header in headers))
            for what, (method, target, *headers) in TABLE.items()
        }

    with ThreadPoolExecutor(3) as pool:
        asked = {name: pool.submit(ask_all, face) for name, face in faces.items()}
        return {name: each.result() for name, each in asked.items()}


def test_the_table_shows_all_kinds_of_answers(answers: dict[str, dict[str, RawAnswer]]) -> None:
    assert len(TABLE) >= 60
    assert {answer.status for answer in answers["server"].values()} == EXPECTED_STATUSES
    good = ("signed", "signed for ever", "signed with the old key", "signed for a box", "another size in the box")
    assert {answers["server"][what].status for what in good} == {200}
    assert {answers["server"][what].status for what in LINKS if what not in good} == {403}


@pytest.mark.parametrize("name", FACES)
def test_every_face_answers_as_our_server(answers: dict[str, dict[str, RawAnswer]], name: str) -> None:
    differing = {
        what: (found, expected)
        for what, answer in answers[name].items()
        if what not in UNTOLD.get(name, ())
        if (found := _shown(what, answer)) != (expected := _shown(what, answers["server"][what]))
    }
    assert not differing, "\n".join(
        f"{what}:\n  {found}\n  {expected} expected" for what, (found, expected) in differing.items()
    )
    told = TABLE.keys() - UNTOLD.get(name, set())
    assert all(answers[name][what].body == answers["server"][what].body for what in told)
    assert all(answers[name][what].status < 500 for what in TABLE)


@pytest.mark.parametrize("name", FACES)
def test_pages_of_other_sites_may_read_and_no_more(answers: dict[str, dict[str, RawAnswer]], name: str) -> None:
    allowed = {answers[name][what].headers["access-control-allow-methods"] for what in ("options", "remote, options")}
    assert allowed == {"GET, HEAD, OPTIONS"}


def test_every_face_downloads_once(answers: dict[str, dict[str, RawAnswer]], site: Receiver) -> None:
    asked = [request.target for request in site.requests]
    assert (asked.count("/new.jpg"), asked.count("/known.jpg")) == (len(answers), 1)


def _shown(what: str, answer: RawAnswer) -> tuple[int, dict[str, str], int]:
    headers = {name: value for name, value in answer.headers.items() if name not in _OF_THE_SERVER}
    differing = {"server-timing"} | (_OF_THE_IMAGE if what in _DOWNLOADED else set())
    if answer.status == 204:
        differing |= _OF_WRITING
    return (
        answer.status,
        {name: "" if name in differing else value for name, value in headers.items()},
        len(answer.body),
    )
