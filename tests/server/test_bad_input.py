"""Whatever a client sends that is wrong gets a 4xx that says what is accepted, and leaves nothing behind."""

from __future__ import annotations

import base64
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from tests.engine.pictures import bomb, encoded, film, noise, quadrants
from tests.server.running import (
    RawAnswer,
    Server,
    error_of,
    exchange,
    get_raw,
    nothing_stored,
    program,
    rows,
    stored_files,
)
from tests.waiting import WAIT_S, until

READABLE = "jpg, png, gif, webp, avif, tiff"
MIB = 1024 * 1024

PNG = encoded(quadrants())


def many_frames(count: int, side: int) -> bytes:
    frames = [Image.new("P", (side, side), index % 250) for index in range(count)]
    for index, frame in enumerate(frames):
        frame.putpalette([(index * 7) % 256, 10, 20] * 256)
    return encoded(frames[0], "gif", save_all=True, append_images=frames[1:], duration=50, optimize=False)


def box(kind: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + kind + b"\0\0\0\0" + kind + b"mif1" + bytes(200)


def refused(answer: httpx.Response | RawAnswer, status: int, code: str, *says: str) -> None:
    """Check the status, the stable code, and that the envelope's text says all of `says`."""
    content = answer.content if isinstance(answer, httpx.Response) else answer.body
    found = answer.status_code if isinstance(answer, httpx.Response) else answer.status
    assert (found, answer.headers.get("lazypix-error")) == (status, code), content
    text = error_of(content)
    for word in says:
        assert word in text, text
    assert "/tmp" not in text
    assert "Traceback" not in text


# --- images ------------------------------------------------------------------------------------------------------

TRUNCATED = [
    (f"truncated {name}", f"a.{name}", encoded(noise(80, 60), name)[: -len(encoded(noise(80, 60), name)) // 2])
    for name in ("jpg", "png", "webp", "avif", "tiff")
] + [
    ("truncated still gif", "a.gif", encoded(noise(60, 40).quantize(64), "gif")[:-500]),
    ("gif truncated in its last frame", "a.gif", film([(9, 9, 200), (200, 9, 9), (9, 200, 9)])[:-60]),
    ("webp truncated in its last frame", "a.webp", film([(9, 9, 200), (200, 9, 9), (9, 200, 9)], "webp")[:-20]),
]

BAD_IMAGES: list[tuple[str, str, bytes, int, str, tuple[str, ...]]] = [
    ("text", "a.jpg", b"This is no image, whatever its name is.", 415, "unsupported_image", (READABLE,)),
    ("zeros", "a.bin", bytes(5000), 415, "unsupported_image", (READABLE,)),
    ("zero bytes", "a.png", b"", 400, "bad_upload", ("empty", "0 bytes")),
    ("only a signature", "a.png", b"\x89PNG\r\n\x1a\n", 422, "broken_image", ("png",)),
    ("png named jpg", "a.jpg", PNG, 415, "unsupported_image", (".jpg", "png", "accepted", ".png")),
    ("png named txt", "a.txt", PNG, 415, "unsupported_image", (".txt", "png", "accepted")),
    ("png named svg", "a.svg", PNG, 415, "unsupported_image", (".svg", "png", "accepted")),
    ("bmp", "a.bmp", b"BM" + bytes(100), 415, "unsupported_image", ("bmp", READABLE)),
    ("heic", "a.heic", box(b"heic"), 415, "unsupported_image", ("heic", READABLE)),
    ("svg", "a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_image", ("svg", READABLE)),
    ("xml svg", "a.svg", b"<?xml version='1.0'?><svg/>", 415, "unsupported_image", ("svg", READABLE)),
    ("html", "a.png", b"<!doctype html><script>alert(1)</script>", 415, "unsupported_image", (READABLE,)),
    ("pdf", "a.pdf", b"%PDF-1.7\n" + bytes(50), 415, "unsupported_image", ("pdf", READABLE)),
    ("psd", "a.psd", b"8BPS\0\1" + bytes(50), 415, "unsupported_image", ("psd", READABLE)),
    ("ico", "a.ico", b"\0\0\1\0\1\0" + bytes(50), 415, "unsupported_image", ("ico", READABLE)),
    ("header bomb", "a.png", bomb(), 413, "too_large", ("60000x60000", "3600", "50")),
    ("51 megapixels", "a.png", bomb(8500, 6000), 413, "too_large", ("8500x6000", "51.0", "50")),
    ("frames sum up", "a.gif", many_frames(60, 1000), 413, "too_large", ("60 frames", "60.0 megapixels", "50")),
    ("101 frames", "a.gif", many_frames(101, 8), 413, "too_large", ("101 frames", "100")),
    *((what, name, data, 422, "broken_image", ("truncated or damaged",)) for what, name, data in TRUNCATED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "image", "status", "code", "says"), [case[1:] for case in BAD_IMAGES], ids=[c[0] for c in BAD_IMAGES]
)
def test_bad_images_are_refused(
    server: Server, name: str, image: bytes, status: int, code: str, says: tuple[str, ...]
) -> None:
    with server.client() as client, nothing_stored(server.data):
        refused(client.post("/upload", files={"image": (name, image)}), status, code, *says)
        # And so when an ident is chosen, which stays free.
        answer = client.post("/upload", files={"image": (name, image)}, data={"ident": "wanted"})
        refused(answer, status, code, *says)


def test_an_ident_whose_upload_was_refused_is_free(server: Server) -> None:
    with server.client() as client:
        client.post("/upload", files={"image": ("a.png", PNG[:-40])}, data={"ident": "second-try"})
    assert server.upload(PNG, ident="second-try") == "second-try"


# --- too many bytes ----------------------------------------------------------------------------------------------

HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def big_body(size: int) -> Iterator[bytes]:
    yield HEAD
    yield PNG
    for _ in range(size // MIB):
        yield bytes(MIB)
    yield TAIL


def test_more_than_64_mib_with_a_length_is_refused(server: Server) -> None:
    length = len(HEAD) + len(PNG) + 65 * MIB + len(TAIL)
    with server.client() as client, nothing_stored(server.data):
        answer = client.post("/upload", content=big_body(65 * MIB), headers=FORM | {"Content-Length": str(length)})
    refused(answer, 413, "too_large", "67108864 bytes", "64 MiB")


def test_more_than_64_mib_in_chunks_is_refused(server: Server) -> None:
    with server.client() as client, nothing_stored(server.data):
        answer = client.post("/upload", content=big_body(65 * MIB), headers=FORM)
    refused(answer, 413, "too_large", "67108864 bytes", "64 MiB")


def test_a_body_that_announces_far_too_much_is_refused_before_it_is_sent(server: Server) -> None:
    request = (
        b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n"
    )
    with nothing_stored(server.data):  # a "100 Continue" would be read in the place of the answer
        refused(exchange(server, request), 413, "too_large", "64 MiB")


def test_curl_learns_of_the_limit_with_and_without_expect(server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.write(PNG)
        file.truncate(66 * MIB)
    for expect in ("Expect: 100-continue", "Expect:"):
        with nothing_stored(server.data):
            command = [program("curl"), "-s", "-w", "\n%{http_code}", "-H", expect, "-F", f"image=@{large}"]
            done = subprocess.run([*command, f"{server.url}/upload"], capture_output=True, timeout=WAIT_S, check=True)
        body, _, status = done.stdout.rpartition(b"\n")
        assert status == b"413"
        assert "64 MiB" in error_of(body)


def test_urlencoded_and_base64_bodies_have_the_limit_too(server: Server) -> None:
    def base64_body() -> Iterator[bytes]:
        yield b"image="
        for _ in range(92):  # 69 MiB of image
            yield b"iVBORw0K" * (MIB // 8)

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    with server.client() as client, nothing_stored(server.data):
        refused(client.post("/upload", content=base64_body(), headers=headers), 413, "too_large", "64 MiB")


# --- sizes and options -------------------------------------------------------------------------------------------

BAD_SIZES = (
    "0x10", "-5x10", "abcx10", "10", "10x", "x10", "10x-5", "10xabc", "10x<", "10x<abc", "10x10x10", "10x10;20x20",
    "1e3x10", "10.5x10", "٣x10", "9000x10", "10x9000", "9000x0", "10x<9000", "9000x<10", "99999999x1", "0x0", "0x<10",
    "10x10,nonsense",
)  # fmt: skip


@pytest.mark.parametrize("sizes", BAD_SIZES)
def test_bad_sizes_of_a_form_are_refused_before_anything_is_stored(server: Server, sizes: str) -> None:
    with server.client() as client, nothing_stored(server.data):
        answer = client.post("/upload", files={"image": ("a.png", PNG)}, data={"sizes": sizes})
        assert answer.status_code == 400, answer.text
        token = sizes.split(",")[-1]
        assert any(word in error_of(answer.content) for word in (token, *token.replace("<", "").split("x")) if word)


@pytest.mark.parametrize("route", ["/image/{}.jpg", "/resize/{}.jpg", "/sync/{}.jpg"])
def test_bad_sizes_of_the_other_forms_are_refused(server: Server, route: str) -> None:
    ident = server.upload(PNG)
    with server.client() as client, nothing_stored(server.data):
        for sizes in BAD_SIZES:
            answer = client.post(route.format(ident), data={"sizes": sizes})
            assert answer.status_code == 400, (sizes, answer.text)
            error_of(answer.content)


def test_too_many_sizes_are_refused(server: Server) -> None:
    sizes = ",".join(f"{n}x0" for n in range(1, 102))
    with server.client() as client, nothing_stored(server.data):
        answer = client.post("/upload", files={"image": ("a.png", PNG)}, data={"sizes": sizes})
        refused(answer, 400, "bad_transform", "101", "100")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{}.jpg?width=0&height=0", ("0",)),
        ("{}.jpg?width=0&height=50", ("width=0",)),
        ("{}.jpg?width=-1&height=50", ("-1",)),
        ("{}.jpg?width=50&height=-1", ("-1",)),
        ("{}.jpg?width=abc&height=50", ("abc",)),
        ("{}.jpg?width=50&height=%3Cabc", ("abc",)),
        ("{}.jpg?width=50&height=%3C0", ("0",)),
        ("{}.jpg?width=50&height=%3C%3C5", ("<5",)),
        ("{}.jpg?width=5.5&height=5", ("5.5",)),
        ("{}.jpg?width=&height=5", ("width",)),
        ("{}.jpg?width=9000&height=0", ("9000", "8192")),
        ("{}.jpg?width=50&height=9000", ("9000", "8192")),
        ("{}.jpg?width=99999999999999999999&height=0", ("99999",)),
        ("{}.jpg?width=50&width=60", ("width", "twice")),
        ("{}.jpg?width=50&widht=60", ("widht",)),
        ("{}.jpg?unknown=1", ("unknown",)),
        ("{}.jpg?width", ("width",)),
        ("{}.jpg?dpr=9&width=10&fit=inside", ("dpr", "9")),
        ("{}.jpg?width=5000&dpr=2&fit=inside", ("5000", "8192")),
        ("{}.jpg?width=50&height=50&fit=sideways", ("sideways", "cover")),
        ("{}.jpg?quality=0", ("quality",)),
        ("{}.jpg?quality=101", ("quality", "101")),
        ("{}.jpg?rotate=45", ("rotate", "45", "90")),
        ("{}.jpg?rotate=90&rotate=90", ("rotate",)),
        ("{}.exe?width=50&height=0", ("exe", "webp")),
        ("{}.tiff?width=50&height=0", ("tiff", "jpg")),
        ("{}.bmp", ("bmp", "jpg")),
        ("{}.heic", ("heic", "jpg")),
        ("0x10/{}.jpg", ("width", "'0'")),
        ("9000x10/{}.jpg", ("9000", "8192")),
        ("10x9000/{}.webp", ("9000", "8192")),
        ("-5x10/{}.jpg", ("-5x10",)),
        ("10x10,fit=sideways/{}.jpg", ("sideways", "cover")),
        ("10x10,nonsense/{}.jpg", ("nonsense",)),
        ("10x10,nonsense=1/{}.jpg", ("nonsense",)),
        ("10x10,quality=90,quality=80/{}.jpg", ("quality",)),
        ("10x10/{}.jpg?width=5", ("width",)),
        ("10x10,format=png/{}.jpg", ("png", "jpg")),
        ("0/{}.jpg", ("0",)),
        ("-5/{}.jpg", ("-5",)),
        ("9000/{}.jpg", ("9000", "8192")),
        ("50/9000/{}.jpg", ("9000", "8192")),
        ("50/abc/{}.jpg", ("abc",)),
        ("50/-1/{}.jpg", ("-1",)),
    ],
)
def test_bad_options_of_an_address_are_refused(server: Server, target: str, says: tuple[str, ...]) -> None:
    ident = server.upload(PNG)
    with nothing_stored(server.data):
        answer = get_raw(server, "/image/" + target.format(ident))
        assert answer.status == 400, answer.body
        assert answer.headers["lazypix-error"] in ("bad_request", "bad_transform")
        text = error_of(answer.body)
        for word in says:
            assert word in text, text


def test_enlarging_beyond_the_limit_on_the_way_is_refused(server: Server) -> None:
    ident = server.upload(encoded(Image.new("L", (4000, 1), 9)))
    refused(get_raw(server, f"/image/100/8000/{ident}.jpg"), 400, "bad_transform", "megapixels")


# --- idents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ident", ["nobody", "0" * 32, "A" * 128])
def test_an_unknown_ident_is_a_404_everywhere(server: Server, ident: str) -> None:
    with server.client() as client, nothing_stored(server.data):
        answers = [
            client.get(f"/image/{ident}.jpg"),
            client.get(f"/image/{ident}"),
            client.get(f"/image/100x50/{ident}.webp"),
            client.get(f"/image/100/50/{ident}.jpg"),
            client.get(f"/image/{ident}.jpg", params={"width": 50, "height": 0}),
            client.get(f"/info/{ident}"),
            client.post(f"/image/{ident}.jpg", data={"sizes": "10x10"}),
            client.post(f"/resize/{ident}.jpg"),
            client.post(f"/sync/{ident}.jpg"),
            client.delete(f"/image/{ident}"),
        ]
    for answer in answers:
        refused(answer, 404, "unknown_image", ident)


TRICKS = (
    "/image/../catalog.sqlite", "/image/../../../../etc/passwd", "/image/%2e%2e%2fcatalog.sqlite",
    "/image/%2e%2e/catalog.sqlite", "/image/..%2f..%2fetc%2fpasswd.jpg", "/image/..%5c..%5cetc.jpg",
    "/image/10x10/../x.jpg", "/image/10x10/..%2fx.jpg", "/image/x%00.jpg", "/image/x.jpg%00", "/image/a%2Fb.jpg",
    "/image/%2Fetc%2Fpasswd", "/image/.jpg", "/image/..jpg", "/image/", "/image//x.jpg", "/image/.tmp",
    "/image/10x10/.tmp/x.jpg", "/image/%0d%0aSet-Cookie:a=b.jpg", "/image/" + "a" * 129 + ".jpg",
    "/image/" + "a" * 20_000, "/image/a/b/c/d/e.jpg", "/image/x.j%00pg", "/image/%F0%9F%90%88.jpg", "/image/ .jpg",
    "/image/%252e%252e.jpg", "/image/~root.jpg", "/image/$x.jpg", "/image/x;y.jpg", "/image/x.jpg/",
    "/info/..%2f..", "/info/%00", "/info/" + "a" * 129,
)  # fmt: skip


@pytest.mark.parametrize("target", TRICKS, ids=[trick[:40] for trick in TRICKS])
def test_tricks_in_paths_lead_nowhere(server: Server, target: str) -> None:
    with nothing_stored(server.data):
        answer = get_raw(server, target.replace(" ", "%20"))
    assert answer.status in (400, 404), answer.body
    error_of(answer.body)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_tricks_in_paths_lead_nowhere_when_writing(server: Server, method: str) -> None:
    with nothing_stored(server.data):
        for target in TRICKS:
            answer = get_raw(server, target.replace(" ", "%20"), "Content-Length: 0", method=method)
            assert answer.status in (400, 404, 405), (target, answer.body)
            error_of(answer.body)


@pytest.mark.parametrize(
    "ident", ["../x", "a/b", "a.b", "x\0y", "a b", "ü", "..", "a" * 129, "a%2Fb", "<x>", "a\nb", "💥", "a" * 5000]
)
def test_bad_idents_of_an_upload_are_refused(server: Server, ident: str) -> None:
    with server.client() as client, nothing_stored(server.data):
        answer = client.post("/upload", files={"image": ("a.png", PNG)}, data={"ident": ident})
    refused(answer, 400, "bad_ident", "1 to 128", "A-Z a-z 0-9 _ -")


# --- forms -------------------------------------------------------------------------------------------------------


def part(name: str, value: bytes, *, file: bool = False) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"' + ('; filename="a.png"' if file else "")
    return b"--b\r\n" + disposition.encode() + b"\r\n\r\n" + value + b"\r\n"


END = b"--b--\r\n"
GOOD = part("image", PNG, file=True) + END
MULTIPART = "multipart/form-data; boundary=b"
URLENCODED = "application/x-www-form-urlencoded"
BAD_FORMS: list[tuple[str, str | None, bytes, int, str, tuple[str, ...]]] = [
    ("no content type", None, GOOD, 400, "bad_upload", ("none", "multipart/form-data", URLENCODED)),
    ("json", "application/json", b"{}", 400, "bad_upload", ("application/json", "multipart/form-data", URLENCODED)),
    ("the bytes alone", "image/png", PNG, 400, "bad_upload", ("image/png", "multipart/form-data")),
    ("no boundary", "multipart/form-data", GOOD, 400, "bad_upload", ("boundary",)),
    ("empty boundary", 'multipart/form-data; boundary=""', GOOD, 400, "bad_upload", ("boundary",)),
    ("another boundary", "multipart/form-data; boundary=c", GOOD, 400, "bad_upload", ("malformed",)),
    ("mixed", "multipart/mixed; boundary=b", GOOD, 400, "bad_upload", ("multipart/mixed", "multipart/form-data")),
    ("empty body", MULTIPART, b"", 400, "bad_upload", ("early",)),
    ("cut in the image", MULTIPART, GOOD[: len(GOOD) // 2], 400, "bad_upload", ("early",)),
    ("cut before the end", MULTIPART, GOOD[: -len(END)], 400, "bad_upload", ("early",)),
    ("cut in a header", MULTIPART, GOOD[:30], 400, "bad_upload", ("early",)),
    ("no image", MULTIPART, part("sizes", b"10x10") + END, 400, "bad_upload", ("image", READABLE)),
    ("nothing at all", URLENCODED, b"", 400, "bad_upload", ("image",)),
    ("two files", MULTIPART, part("image", PNG, file=True) * 2 + END, 400, "bad_upload", ("image", "twice")),
    ("file and field", MULTIPART, part("image", PNG, file=True) + part("image", PNG) + END, 400, "bad_upload",
     ("image", "twice")),
    ("two fields urlencoded", URLENCODED, b"image=aaaa&image=bbbb", 400, "bad_upload", ("image", "twice")),
    ("two idents", MULTIPART, part("ident", b"a") + part("ident", b"b") + GOOD, 400, "bad_upload",
     ("ident", "twice")),
    ("65 KiB field", MULTIPART, part("sizes", b"1" * 65 * 1024) + GOOD, 413, "too_large", ("sizes", "65536")),
    ("65 KiB field after the image", MULTIPART, part("image", PNG, file=True) + part("x", b"1" * 65 * 1024) + END,
     413, "too_large", ("'x'", "65536")),
    ("65 KiB field urlencoded", URLENCODED, b"image=aaaa&sizes=" + b"1" * 65 * 1024, 413, "too_large", ("sizes",)),
    ("65 KiB name urlencoded", URLENCODED, b"i" * 65 * 1024 + b"=1", 413, "too_large", ("65536",)),
    ("65 KiB part header", MULTIPART, b"--b\r\nX-A: " + b"a" * 66 * 1024 + b"\r\n\r\n" + GOOD, 400, "bad_upload",
     ("header",)),
    ("51 fields", MULTIPART, b"".join(part(f"f{n}", b"1") for n in range(51)) + GOOD, 400, "bad_upload", ("50",)),
    ("part without a name", MULTIPART, b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n" + END, 400, "bad_upload",
     ("name",)),
    ("half a percent sign", URLENCODED, b"image=%8", 415, "unsupported_image", ()),
    ("malformed base64", URLENCODED, b"image=iVBORw0KGgo%3DAAAA", 400, "bad_upload", ("base64",)),
    ("malformed base64 in a part", MULTIPART, part("image", b"iVBORw0KGgoAAA=A") + END, 400, "bad_upload",
     ("base64",)),
    ("one letter of base64", MULTIPART, part("image", b"iVBORw0KG") + END, 400, "bad_upload", ("base64",)),
    ("malformed data url", MULTIPART, part("image", b"data:image/png;base64,!!!!") + END, 400, "bad_upload",
     ("base64",)),
    ("empty data url", MULTIPART, part("image", b"data:image/png;base64,") + END, 400, "bad_upload", ("empty",)),
    ("base64 of a text", MULTIPART, part("image", base64.b64encode(b"no image")) + END, 415, "unsupported_image",
     (READABLE,)),
    ("bad sync", MULTIPART, part("sync", b"maybe") + GOOD, 400, "bad_request", ("maybe", "true, false")),
    ("bad callback", MULTIPART, part("callback", b"ftp://x/") + GOOD, 400, "bad_request", ("ftp://x/", "http")),
    ("callback without a host", MULTIPART, part("callback", b"http://") + GOOD, 400, "bad_request", ("http",)),
    ("callback that is no URL", MULTIPART, part("callback", b"http://[") + GOOD, 400, "bad_request", ("http",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "body", "status", "code", "says"), [case[1:] for case in BAD_FORMS], ids=[c[0] for c in BAD_FORMS]
)
def test_bad_forms_are_refused(
    server: Server, kind: str | None, body: bytes, status: int, code: str, says: tuple[str, ...]
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    with server.client() as client, nothing_stored(server.data):
        refused(client.post("/upload", content=body, headers=headers), status, code, *says)


def test_a_broken_form_of_another_route_is_refused(server: Server) -> None:
    ident = server.upload(PNG)
    with server.client() as client, nothing_stored(server.data):
        for route in (f"/image/{ident}.jpg", f"/resize/{ident}.jpg", f"/sync/{ident}.jpg"):
            answer = client.post(route, content=b"{}", headers={"Content-Type": "application/json"})
            refused(answer, 400, "bad_upload", "multipart/form-data")


def test_odd_headers_of_parts_never_give_a_500(server: Server) -> None:
    odd = (
        b'Content-Disposition: form-data; name="image"; filename="',
        b"Content-Disposition: form-data; name=image; filename*=utf-8''%e2%82%ac.png",
        b"Content-Disposition: form-data; name=image; filename*=klingon'x'%ff.png",
        b"Content-Disposition: form-data; name*0=im; name*1=age; filename=a.png",
        b"Content-Disposition: form-data; name=image; filename*" + b"9" * 5000 + b"=a.png",
        b"Content-Disposition: form-data; name=image; filename*0*=utf-8''%zz; filename*2=x",
        b'Content-Disposition: form-data; name="\xff\xfe"; filename="\xff\xfe"',
        b'Content-Disposition: form-data; name="image"; filename="' + b"a/" * 5000 + b'"',
        b"Content-Disposition: ;;;===;name",
        b"Content-Disposition:",
        b": x",
        b"Content-Disposition: form-data; name=\x00image\x00",
    )
    with server.client() as client:
        for header in odd:
            body = b"--b\r\n" + header + b"\r\n\r\n" + PNG[:-30] + b"\r\n--b--\r\n"
            answer = client.post("/upload", content=body, headers=FORM)
            assert 400 <= answer.status_code < 500, (header, answer.text)
            error_of(answer.content)


def test_random_damage_to_a_form_never_gives_a_500(server: Server) -> None:
    seed = random.Random(20)
    whole = part("sizes", b"10x10") + part("ident", b"x") + part("image", PNG[:-30], file=True) + END
    with server.client() as client, nothing_stored(server.data):
        for _ in range(150):
            body = bytearray(whole)
            for _ in range(seed.randint(1, 4)):
                body[seed.randrange(len(body))] = seed.randrange(256)
            answer = client.post("/upload", content=bytes(body), headers=FORM)
            assert 400 <= answer.status_code < 500, (bytes(body), answer.text)
            error_of(answer.content)


def test_random_damage_to_an_image_never_gives_a_500(server: Server) -> None:
    seed = random.Random(21)
    with server.client() as client:
        for name in ("jpg", "png", "gif", "webp", "avif", "tiff"):
            whole = encoded(noise(40, 30), name)
            for _ in range(12):
                body = bytearray(whole)
                for _ in range(seed.randint(1, 8)):
                    body[seed.randrange(len(body))] = seed.randrange(256)
                answer = client.post("/upload", files={"image": ("a", bytes(body))})
                assert answer.status_code in (201, 413, 415, 422), answer.text
                if answer.status_code == 201:  # then it can be rendered too, or is refused politely
                    ident = answer.json()["content"]["ident"]
                    status = client.get(f"/image/20x20,fit=cover/{ident}.webp").status_code
                    assert status in (200, 422)
                    variant = f"images/{ident}/20x20,fit=cover.webp"
                    if status == 200:  # it is stored after that; the next tests look at all files
                        until(lambda v=variant: v in stored_files(server.data))  # type: ignore[misc]


# --- addresses and headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["/image/x.jpg?width=%ff&height=0", "/image/x.jpg?%ff=1", "/image/%ff.jpg", "/image/%c3%28/x.jpg"],
)
def test_addresses_that_are_not_utf_8_are_refused(server: Server, target: str) -> None:
    refused(get_raw(server, target), 400, "bad_request", "UTF-8")


def test_too_many_options_are_refused(server: Server) -> None:
    query = "&".join(f"a{n}=1" for n in range(60))
    refused(get_raw(server, f"/image/x.jpg?{query}"), 400, "bad_request", "options")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n", b"FOO / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", b"POST /upload HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
        b"GET /image/\xff\xfe.jpg HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /upload HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(range(256)) * 20,
    ],
)  # fmt: skip
def test_garbage_on_the_socket_is_answered_with_400_or_closed(server: Server, garbage: bytes) -> None:
    with (
        nothing_stored(server.data),
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection,
    ):
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received == b"" or received.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), received
    assert server.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Range: bytes=" + "9" * 5000 + "-", "Range: bytes=a-b", "Range: bytes=5-2", "Range: bytes=0-0,2-3",
        "Range: elephants=0-5", "Range: bytes=" + "0-1," * 2000 + "0-1", "If-Range: nonsense", "If-Range: \xff",
        "If-None-Match: \xff\xfe", 'If-None-Match: "' + "a" * 20_000, "If-None-Match: ,,,,", "If-Match: W/*",
        "If-Modified-Since: yesterday", "If-Modified-Since: Mon, 99 Foo 99999 99:99:99 GMT",
        "If-Modified-Since: Mon, 01 Jan 0001 00:00:00 -2359", "If-Unmodified-Since: \xff", "If-Modified-Since: ",
        "Accept: ;;;q=,,/", "Accept: image/webp;q=nan", "Accept: image/*;q=inf, */*;q=-1", "Accept: " + "a/b," * 5000,
        "Accept: \xff\xfe", "Accept: image/avif;q=1e400", "Host: [", "Host: \xff", "Host: ", "Host: a b:c:d/../@",
        "Content-Length: 0", "Expect: something", "Upgrade: websocket", "Connection: upgrade, close",
        "Authorization: \xff\xfe", "Authorization: Bearer", "X-Forwarded-For: \xff", "Content-Type: \xff;=;=",
        "Cookie: " + "a" * 30_000, "Transfer-Encoding: identity", "TE: trailers", "Origin: null",
    ],
    ids=lambda header: header[:40],
)  # fmt: skip
def test_odd_headers_never_give_a_500(server: Server, header: str) -> None:
    ident = next(iter(rows(server.data)), None) or server.upload(PNG)
    for target in (f"/image/{ident}.auto", f"/image/20x20/{ident}.png", "/nothing/here", "/readyz", f"/info/{ident}"):
        answer = exchange(server, f"GET {target} HTTP/1.1\r\n{header}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        assert answer.status < 500, (target, answer.body)
        assert answer.status in (200, 206, 304, 400, 404, 412, 416, 417), (target, answer.status)


def test_a_write_with_odd_headers_never_gives_a_500(server: Server) -> None:
    for header in ("Host: [", "Host: \xff", "Content-Type: \xff", "Content-Type: multipart/form-data; boundary=\xff"):
        request = f"POST /upload HTTP/1.1\r\n{header}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd"
        answer = exchange(server, request.encode("latin-1"))
        assert 400 <= answer.status < 500, (header, answer.body)


def test_what_follows_a_refused_body_is_not_taken_for_a_request(server: Server) -> None:
    hidden = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    request = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(
        hidden
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection:
        connection.sendall(request + hidden + b"GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        first = read_answer_keeping(connection)
        assert first.status == 400
        rest = b""
        while piece := connection.recv(65536):
            rest += piece
    assert rest.count(b"HTTP/1.1 ") in (0, 1)  # the answer to /readyz, or the connection was closed


def read_answer_keeping(connection: socket.socket) -> RawAnswer:
    """Read one answer and not a byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return RawAnswer(status=int(head.split()[1]), headers={}, body=body)


def test_the_server_still_works_after_all_this(server: Server) -> None:
    ident = server.upload(PNG)
    assert server.picture(f"/image/60x40/{ident}.webp").size == (60, 40)


def test_an_image_in_a_field_of_another_name_is_told_where_it_belongs(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/upload", files={"immage": ("a.jpg", bytes(100_000))})
    refused(answer, 413, "too_large", "'immage'", "65536 bytes", "field 'image'")
