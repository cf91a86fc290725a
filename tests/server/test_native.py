"""lazypix' own addresses over HTTP: formats, validators, ranges, caching headers, facts, deletion, health."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image
from tests.engine.pictures import CORNERS as QUADRANTS
from tests.engine.pictures import corners_of, encoded, film, jpg, looks_like, noise, quadrants, see_through
from tests.server.running import Server, children, error_of, get_raw, nothing_stored, running, stored_files
from tests.waiting import WAIT_S, until

MIB = 1024 * 1024
# What browsers send for an <img>.
CHROME = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
FIREFOX = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
OLDER_FIREFOX = "image/webp,*/*"
SAFARI = (
    "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,"
    "image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
)
OLDER_SAFARI = "image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5"
CURL = "*/*"


def decoded(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    picture = Image.open(io.BytesIO(answer.content))
    picture.load()
    return picture


@pytest.fixture(scope="module")
def photo(server: Server) -> str:
    return server.upload(jpg(quadrants(600, 400)), name="holiday.jpg")


@pytest.fixture(scope="module")
def logo(server: Server) -> str:
    return server.upload(encoded(see_through(), "png"))


@pytest.fixture(scope="module")
def clip(server: Server) -> str:
    return server.upload(film([(200, 0, 0), (0, 200, 0), (0, 0, 200)]))


@pytest.fixture(scope="module")
def large(server: Server) -> tuple[str, bytes]:
    """An original of more than 1 MiB, which is sent from its file."""
    original = encoded(noise(900, 700), "png")
    assert len(original) > 1024 * 1024
    return server.upload(original), original


# --- addresses and formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extension", "format"),
    [("jpg", "JPEG"), ("jpeg", "JPEG"), ("png", "PNG"), ("gif", "GIF"), ("webp", "WEBP"), ("avif", "AVIF")],
)
def test_each_format_can_be_had_by_its_extension(server: Server, photo: str, extension: str, format: str) -> None:
    answer = server.get(f"/image/90x90/{photo}.{extension}")
    picture = decoded(answer)
    assert (picture.format, picture.size) == (format, (90, 60))
    assert looks_like(corners_of(picture), QUADRANTS, within=30)
    assert answer.headers["content-type"] == f"image/{format.lower()}"
    assert "vary" not in answer.headers  # the address alone decides
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize(
    ("target", "size"),
    [
        ("/image/120x/{}.png", (120, 80)),
        ("/image/x40/{}.png", (60, 40)),
        ("/image/5000x5000/{}.png", (600, 400)),  # inside, never enlarged
        ("/image/100x100,fit=cover/{}.png", (100, 100)),
        ("/image/100x100,fit=fill/{}.png", (100, 100)),
        ("/image/100x100,rotate=90/{}.png", (67, 100)),
        ("/image/30x20,dpr=2/{}.png", (60, 40)),
        ("/image/{}.png?width=100&height=100&fit=inside", (100, 67)),
        ("/image/{}.png?rotate=90", (400, 600)),
        ("/image/full/{}.png", (600, 400)),
        ("/image/{}.png", (600, 400)),
        ("/image/crop=0:0:0.5:0.5/{}.png", (300, 200)),
    ],
)
def test_transforms_in_path_and_query(server: Server, photo: str, target: str, size: tuple[int, int]) -> None:
    assert server.picture(target.format(photo)).size == size


def test_a_crop_shows_the_part_that_was_asked_for(server: Server, photo: str) -> None:
    picture = server.picture(f"/image/crop=0.5:0.5:0.5:0.5/{photo}.png")
    assert looks_like(corners_of(picture), [QUADRANTS[3]] * 4)


@pytest.mark.parametrize("target", ["/image/80x80/{}.auto", "/image/80x80/{}", "/image/{}.auto?width=80&height=60"])
@pytest.mark.parametrize(
    ("accept", "of_photo", "of_logo", "of_clip"),
    [
        (CHROME, "AVIF", "AVIF", "WEBP"),
        (FIREFOX, "AVIF", "AVIF", "WEBP"),
        (SAFARI, "AVIF", "AVIF", "WEBP"),
        (OLDER_FIREFOX, "WEBP", "WEBP", "WEBP"),
        (OLDER_SAFARI, "JPEG", "PNG", "GIF"),
        (CURL, "JPEG", "PNG", "GIF"),
        ("image/webp;q=0.5,image/avif;q=0", "WEBP", "WEBP", "WEBP"),
        ("text/html", "JPEG", "PNG", "GIF"),
    ],
)
def test_negotiation(
    server: Server, photo: str, logo: str, clip: str,
    target: str, accept: str, of_photo: str, of_logo: str, of_clip: str,
) -> None:  # fmt: skip
    for ident, expected in ((photo, of_photo), (logo, of_logo), (clip, of_clip)):
        for _ in range(2):  # made now; from memory
            answer = server.get(target.format(ident), accept=accept)
            picture = decoded(answer)
            assert picture.format == expected
            assert answer.headers["vary"].lower() == "accept"
            assert answer.headers["content-type"] == f"image/{expected.lower()}"
            assert getattr(picture, "n_frames", 1) == (3 if ident == clip else 1)
            if ident == logo:
                assert picture.convert("RGBA").getpixel((picture.width - 4, 4))[3] == 0  # type: ignore[index]


def test_different_accept_headers_do_not_get_each_others_answers(server: Server, photo: str) -> None:
    target = f"/image/77x77/{photo}.auto"
    tags = {accept: server.get(target, accept=accept).headers["etag"] for accept in (CHROME, OLDER_FIREFOX, CURL)}
    assert len(set(tags.values())) == 3
    # A revalidation is for the form that this client takes.
    assert server.get(target, accept=CURL, if_none_match=tags[CHROME]).status_code == 200
    assert server.get(target, accept=CHROME, if_none_match=tags[CHROME]).status_code == 304


def test_the_original_comes_as_it_was_uploaded(server: Server) -> None:
    for name, original in (
        ("jpg", jpg(quadrants())), ("png", encoded(quadrants())), ("gif", film([(1, 2, 3), (200, 2, 3)])),
        ("webp", encoded(quadrants(), "webp")), ("avif", encoded(quadrants(), "avif")),
        ("tiff", encoded(quadrants(), "tiff")),
    ):  # fmt: skip
        ident = server.upload(original)
        answer = server.get(f"/image/{ident}.{name}")
        assert answer.content == original
        assert answer.headers["content-type"] == {"jpg": "image/jpeg"}.get(name, f"image/{name}")


def test_an_original_that_is_no_web_format_is_only_given_by_its_own_name(server: Server, photo: str) -> None:
    answer = server.get(f"/image/{photo}.tiff")
    assert answer.status_code == 404
    assert "jpg" in error_of(answer.content)


# --- validators --------------------------------------------------------------------------------------------------


def test_head_is_get_without_the_body(server: Server, photo: str, large: tuple[str, bytes]) -> None:
    for target in (f"/image/66x66/{photo}.webp", f"/image/{large[0]}.png", f"/image/{photo}.auto", "/healthz", "/"):
        with server.client() as client:
            client.get(target)  # so that both are answered alike
            got, head = client.get(target), client.head(target)
        assert head.status_code == got.status_code == 200
        assert head.content == b""
        assert int(head.headers["content-length"]) == len(got.content)
        volatile = ("date", "server-timing")
        kept = [[item for item in answer.headers.multi_items() if item[0] not in volatile] for answer in (got, head)]
        assert kept[0] == kept[1]


def test_head_makes_a_new_variant_and_keeps_the_connection_usable(server: Server, photo: str) -> None:
    with server.client() as client:
        head = client.head(f"/image/65x65/{photo}.webp")
        got = client.get(f"/image/65x65/{photo}.webp")
        missing = client.head("/image/65x65/nobody.webp")
        after = client.get("/healthz")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == got.headers["etag"]
    assert int(head.headers["content-length"]) == len(got.content)
    assert (missing.status_code, missing.content, after.status_code) == (404, b"", 200)


def test_etags_are_strong_stable_and_different_for_different_bytes(tmp_path: Path) -> None:
    targets = ("/image/50x50/same.webp", "/image/50x50/same.jpg", "/image/51x51/same.webp", "/image/same.jpg",
               "/image/50x50/other.webp", "/image/50/50/same.jpg")  # fmt: skip
    found: list[list[str]] = []
    for _ in range(2):  # a restart between
        with running(tmp_path / "data") as server:
            if not found:
                for ident in ("same", "other"):
                    server.upload(jpg(quadrants()), ident=ident)
            found.append([server.get(target).headers["etag"] for target in targets])
    assert found[0] == found[1]
    assert len(set(found[0])) == len(targets)
    assert all(re.fullmatch(r'"[!#-~]+"', tag) for tag in found[0])  # not W/


def test_different_texts_for_the_same_variant_share_one_etag_and_one_file(server: Server) -> None:
    ident = server.upload(jpg(quadrants()))
    expected = {f"images/{ident}/origin.jpg", f"images/{ident}/31x31,fit=cover,quality=90.jpg"}
    one = server.get(f"/image/31x31,quality=90,fit=cover/{ident}.jpg")
    until(lambda: files_of(server, ident) == expected, otherwise=lambda: f"{files_of(server, ident)}")
    other = server.get(f"/image/{ident}.jpg?fit=cover&quality=90&height=31&width=31")
    assert one.headers["etag"] == other.headers["etag"]
    assert one.content == other.content
    assert files_of(server, ident) == expected


def files_of(server: Server, ident: str) -> set[str]:
    return {name for name in stored_files(server.data) if ident in name}


def test_a_304_has_the_headers_caches_need_and_no_body(server: Server, photo: str) -> None:
    for target in (f"/image/64x64/{photo}.webp", f"/image/64x64/{photo}.auto", f"/image/{photo}.jpg"):
        whole = server.get(target)
        tag = whole.headers["etag"]
        for asked in (tag, f"W/{tag}", f'"nonsense", {tag}', "*"):
            answer = server.get(target, if_none_match=asked)
            assert (answer.status_code, answer.content) == (304, b""), asked
            assert answer.headers["etag"] == tag
            assert answer.headers["cache-control"] == whole.headers["cache-control"]
            assert answer.headers.get("vary") == whole.headers.get("vary")
        assert server.get(target, if_none_match='"nonsense"').content == whole.content


def test_a_304_for_a_variant_that_was_never_made_costs_no_work(tmp_path: Path) -> None:
    with running(tmp_path / "one") as server, running(tmp_path / "other") as elsewhere:
        for each in (server, elsewhere):
            each.upload(jpg(quadrants()), ident="picture")
        tag = elsewhere.get("/image/40x40/picture.webp").headers["etag"]
        with nothing_stored(server.data):
            answer = server.get("/image/40x40/picture.webp", if_none_match=tag)
            assert answer.status_code == 304
        assert len(stored_files(server.data)) == 1  # only the original


def test_dates_are_looked_at_only_without_an_entity_tag(server: Server, photo: str) -> None:
    target = f"/image/63x63/{photo}.webp"
    modified = server.get(target).headers["last-modified"]
    assert server.get(target, if_modified_since=modified).status_code == 304
    assert server.get(target, if_modified_since="Thu, 01 Jan 1970 00:00:00 GMT").status_code == 200
    assert server.get(target, if_modified_since=modified, if_none_match='"x"').status_code == 200
    assert server.get(target, if_unmodified_since="Thu, 01 Jan 1970 00:00:00 GMT").status_code == 412
    assert server.get(target, if_match='"x"').status_code == 412


# --- ranges ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bodies(server: Server, photo: str, large: tuple[str, bytes]) -> dict[str, bytes]:
    """Two targets with all their bytes: a variant, and an original that is sent from its file."""
    variant = f"/image/300x300/{photo}.png"
    return {variant: server.get(variant).content, f"/image/{large[0]}.png": large[1]}


Slice = Callable[[bytes], bytes]
RANGES: list[tuple[str, Slice, str]] = [
    ("bytes=0-0", lambda b: b[:1], "bytes 0-0/{}"),
    ("bytes=0-99", lambda b: b[:100], "bytes 0-99/{}"),
    ("bytes=100-199", lambda b: b[100:200], "bytes 100-199/{}"),
    ("bytes=-7", lambda b: b[-7:], ""),
    ("bytes=500-", lambda b: b[500:], ""),
    ("bytes=10-999999999", lambda b: b[10:], ""),
    ("bytes=-999999999", lambda b: b, ""),
]


@pytest.mark.parametrize(("header", "part", "content_range"), RANGES, ids=[case[0] for case in RANGES])
def test_a_range_is_answered_206(
    server: Server, bodies: dict[str, bytes], header: str, part: Slice, content_range: str
) -> None:
    for target, whole in bodies.items():
        for _ in range(2):
            answer = server.get(target, range=header)
            assert answer.status_code == 206
            assert answer.content == part(whole)
            assert int(answer.headers["content-length"]) == len(part(whole))
            assert answer.headers["content-range"].endswith(f"/{len(whole)}")
            if content_range:
                assert answer.headers["content-range"] == content_range.format(len(whole))


def test_the_parts_of_a_download_make_the_whole(server: Server, bodies: dict[str, bytes]) -> None:
    for target, whole in bodies.items():
        step = len(whole) // 7
        ranges = [f"bytes={start}-{start + step - 1}" for start in range(0, len(whole), step)]
        assert b"".join(server.get(target, range=each).content for each in ranges) == whole


def test_a_range_beyond_the_end_is_answered_416(server: Server, bodies: dict[str, bytes]) -> None:
    for target, whole in bodies.items():
        for header in (f"bytes={len(whole)}-", "bytes=99999999999-", "bytes=-0"):
            answer = server.get(target, range=header)
            assert (answer.status_code, answer.content) == (416, b"")
            assert answer.headers["content-range"] == f"bytes */{len(whole)}"


def test_if_range_gives_the_part_only_of_the_same_bytes(server: Server, bodies: dict[str, bytes]) -> None:
    for target, whole in bodies.items():
        plain = server.get(target)
        for validator in (plain.headers["etag"], plain.headers["last-modified"]):
            assert server.get(target, range="bytes=5-9", if_range=validator).content == whole[5:10]
        for other in ('"other"', f"W/{plain.headers['etag']}", "Thu, 01 Jan 1970 00:00:00 GMT"):
            answer = server.get(target, range="bytes=5-9", if_range=other)
            assert (answer.status_code, answer.content) == (200, whole)


def test_a_client_that_leaves_in_the_middle_of_a_file_hurts_nobody(server: Server, large: tuple[str, bytes]) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(f"GET /image/{large[0]}.png HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            assert connection.recv(100)
    assert server.get(f"/image/{large[0]}.png").content == large[1]


# --- other headers -----------------------------------------------------------------------------------------------


def test_images_may_be_cached_and_errors_may_not(server: Server, photo: str) -> None:
    for target in (f"/image/62x62/{photo}.webp", f"/image/{photo}.jpg", f"/image/62x62/{photo}"):
        control = server.get(target).headers["cache-control"]
        assert "public" in control
        assert "max-age=86400" in control
    assert server.get(f"/image/0x0/{photo}.jpg").headers["cache-control"] == "no-store"
    assert server.get("/image/nobody.jpg").headers["cache-control"] == "public, max-age=10"
    assert server.get("/readyz").headers["cache-control"] == "no-store"


def test_the_server_tells_where_the_time_went(tmp_path: Path) -> None:
    with running(tmp_path / "data", cache_ttl_s="600") as server:
        target = f"/image/61x61/{server.upload(jpg(quadrants()))}.webp"
        timing = server.get(target).headers["server-timing"]
        assert re.fullmatch(r"wait;dur=[\d.]+, render;dur=[\d.]+", timing)
        assert server.get(target).headers["server-timing"] == "cache;desc=hit"


@pytest.mark.parametrize("target", ["/image/{}.jpg", "/image/60x60/{}.webp", "/image/nobody.jpg", "/info/{}",
                                    "/healthz", "/nothing", "/image/0x0/{}.jpg", "/"])  # fmt: skip
def test_every_answer_is_safe_to_open(server: Server, photo: str, target: str) -> None:
    answer = server.get(target.format(photo))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "server" not in answer.headers


HOSTILE = (
    'a".html', "a\r\nSet-Cookie: x=1\r\n.jpg", "../../etc/passwd.jpg", "..\\..\\evil.jpg", "a;b=c.jpg", "ü ж 猫.jpg",
    "<script>.jpg", "%0d%0aX: y.jpg", "a\x00b.jpg", "a" * 3000 + ".jpg", "\u202egpj.exe.jpg", '".jpg', "'.jpg", " .jpg",
    ".jpg", "..jpg", "a\tb.jpg", "C:\\Users\\me\\holiday.jpg", "💥.jpg",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=[ascii(name)[:20] for name in HOSTILE])
def test_hostile_filenames_are_harmless_in_content_disposition(server: Server, name: str) -> None:
    disposition = f'form-data; name="image"; filename="{name}"'.replace("\r\n", "%0D%0A")
    body = b"--b\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + jpg(quadrants()) + b"\r\n--b--\r\n"
    with server.client() as client:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        uploaded = client.post("/upload", content=body, headers=headers)
        if uploaded.status_code != 201:  # a quotation mark in the middle may make another extension of it
            assert uploaded.status_code in (400, 415), uploaded.text
            return
        ident = uploaded.json()["content"]["ident"]
        answers = [client.get(f"/image/{ident}.jpg"), client.get(f"/image/50x50/{ident}.webp")]
    for answer, extension in zip(answers, ("jpg", "webp"), strict=True):
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        value = answer.headers["content-disposition"]
        quoted = re.fullmatch(
            r"""inline; filename="([A-Za-z0-9._ -]{1,200})"(; filename\*=UTF-8''[A-Za-z0-9._~%-]{1,2000})?""", value
        )
        assert quoted, value
        assert quoted[1].endswith(f".{extension}")
        assert "/" not in quoted[1]


def test_the_filename_of_the_upload_is_the_filename_of_the_download(server: Server, photo: str) -> None:
    assert server.get(f"/image/{photo}.jpg").headers["content-disposition"] == 'inline; filename="holiday.jpg"'
    answer = server.get(f"/image/59x40/{photo}.webp")
    assert answer.headers["content-disposition"] == 'inline; filename="holiday-59x40.webp"'


# --- facts and deletion ------------------------------------------------------------------------------------------


def test_info_tells_what_is_known(server: Server) -> None:
    original = jpg(quadrants(90, 60))
    ident = server.upload(original, name="known.jpg")
    server.get(f"/image/30x30/{ident}.webp")
    until(lambda: len(server.get(f"/info/{ident}").json()["content"]["variants"]) > 0)  # it is stored after that
    facts = server.get(f"/info/{ident}").json()
    assert facts["status"] == "ok"
    content = facts["content"]
    assert (content["ident"], content["format"], content["filename"]) == (ident, "jpg", "known.jpg")
    assert (content["width"], content["height"], content["frames"], content["alpha"]) == (90, 60, 1, False)
    assert (content["size"], content["sha256"]) == (len(original), hashlib.sha256(original).hexdigest())
    assert [variant["name"] for variant in content["variants"]] == ["30x30.webp"]


def test_deletion_is_for_good(server: Server) -> None:
    ident = server.upload(jpg(quadrants()), ident="doomed")
    targets = (f"/image/{ident}.jpg", f"/image/30x30/{ident}.webp", f"/image/30x30/{ident}.auto", f"/info/{ident}")
    for target in targets:
        assert server.get(target).status_code == 200
    names = ("origin.jpg", "30x30.webp", "30x30.jpg")
    until(lambda: files_of(server, ident) == {f"images/{ident}/{name}" for name in names})
    with server.client() as client:
        answer = client.delete(f"/image/{ident}")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "content": {"ident": ident}})
        for target in (*targets, f"/image/31x31/{ident}.webp"):
            assert client.get(target).status_code == 404
        assert client.delete(f"/image/{ident}").status_code == 404
        assert client.post(f"/image/{ident}.jpg", data={"sizes": "10x10"}).status_code == 404
        taken = client.post("/upload", files={"image": ("a.jpg", jpg(quadrants()))}, data={"ident": ident})
        assert taken.status_code == 409
        error_of(taken.content)
    assert files_of(server, ident) == set()
    assert not (server.data / "images" / ident).exists()


def test_a_deleted_image_is_gone_for_caches_that_revalidate_too(server: Server) -> None:
    ident = server.upload(jpg(quadrants()), ident="revalidated")
    target = f"/image/30x30/{ident}.webp"
    tag = server.get(target).headers["etag"]
    with server.client() as client:
        assert client.delete(f"/image/{ident}").status_code == 200
    assert server.get(target, if_none_match=tag).status_code == 404


def test_if_none_match_any_is_true_only_of_what_exists(server: Server) -> None:
    assert server.get("/image/30x30/never-there.webp", if_none_match="*").status_code == 404


def test_an_image_can_be_deleted_by_its_file_name(server: Server) -> None:
    ident = server.upload(jpg(quadrants()))
    with server.client() as client:
        assert client.delete(f"/image/{ident}.jpg").status_code == 200
    assert server.get(f"/info/{ident}").status_code == 404


# --- health and the rest -----------------------------------------------------------------------------------------


def test_healthz_and_readyz_answer(server: Server) -> None:
    for target in ("/healthz", "/readyz"):
        answer = server.get(target)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_large_stored_variant_is_sent_from_its_file(server: Server) -> None:
    ident = server.upload(encoded(noise(900, 700)))
    made = server.get(f"/image/800x/{ident}.png?")
    assert len(made.content) > MIB
    until(lambda: len(server.get(f"/info/{ident}").json()["content"]["variants"]) == 1)
    # Other texts for the same variant, so that memory has no answer.
    again = server.get(f"/image/{ident}.png?width=800&fit=inside")
    assert (again.status_code, again.content) == (200, made.content)
    assert again.headers["etag"] == made.headers["etag"]
    part = server.get(f"/image/{ident}.png?fit=inside&width=800", range="bytes=1000-1999")
    assert (part.status_code, part.content) == (206, made.content[1000:2000])
    same = server.get(f"/image/{ident}.png?fit=inside&width=800", if_none_match=made.headers["etag"])
    assert same.status_code == 304


def test_readyz_is_503_when_the_catalog_is_broken(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        server.upload(jpg(quadrants()))
        for file in server.data.glob("catalog.sqlite*"):
            file.write_bytes(b"this is no database " * 5000)
        answer = server.get("/readyz")
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
        error_of(answer.content)
        assert server.get("/healthz").status_code == 200


def test_readyz_is_503_when_the_catalog_is_gone(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        for file in server.data.glob("catalog.sqlite*"):
            file.unlink()
        assert server.get("/readyz").status_code == 503


def test_options_allow_what_browsers_ask_beforehand(server: Server) -> None:
    with server.client() as client:
        for target in ("/upload", "/image/x.jpg", "/nothing"):
            origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
            answer = client.options(target, headers=origin)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == "*"
            methods = set(answer.headers["access-control-allow-methods"].split(", "))
            assert methods == {"GET", "HEAD", "OPTIONS", "POST", "DELETE"}
            assert "authorization" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize("target", ["/nothing", "/image", "/images/x.jpg", "/info", "/upload/x", "/IMAGE/x.jpg",
                                    "/image/a/b/c/d.jpg", "//", "/healthz/", "/info/x/y"])  # fmt: skip
def test_what_is_not_there_is_a_404_in_the_envelope(server: Server, target: str) -> None:
    answer = get_raw(server, target)
    assert answer.status == 404
    assert answer.headers["lazypix-error"] == "not_found"
    error_of(answer.body)


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", "/upload", {"POST", "OPTIONS"}),
        ("PUT", "/image/x.jpg", {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}),
        ("PATCH", "/image/x.jpg", {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}),
        ("PUT", "/image/60x/x.jpg", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/upload", {"POST", "OPTIONS"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/resize/x.jpg", {"POST", "OPTIONS"}),
        ("DELETE", "/info/x", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_wrong_method_is_a_405_that_lists_the_right_ones(
    server: Server, method: str, target: str, allowed: set[str]
) -> None:
    with server.client() as client:
        answer = client.request(method, target)
    assert (answer.status_code, answer.headers["lazypix-error"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed
    text = error_of(answer.content)
    assert method in text
    assert all(word in text for word in allowed)


def test_the_root_says_what_this_is(server: Server) -> None:
    assert "upload" in server.get("/").json()["lazypix"]


# --- several server processes ------------------------------------------------------------------------------------


def test_two_workers_serve_one_folder_and_make_a_variant_once(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "2") as server:
        ident = server.upload(jpg(noise(1500, 1000)))
        barrier = threading.Barrier(40)

        def ask(_: int) -> httpx.Response:
            with server.client() as client:
                client.get("/healthz")  # so that the connections are there, spread over both processes
                barrier.wait(WAIT_S)
                return client.get(f"/image/700x/{ident}.webp")

        with ThreadPoolExecutor(40) as crowd:
            answers = list(crowd.map(ask, range(40)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        # Who waited for the same render got its timing; the other process found the file.
        timings = {answer.headers["server-timing"] for answer in answers}
        assert len([timing for timing in timings if "render;dur=" in timing]) == 1, timings
        assert len(children(server.pid)) == 2


def test_any_worker_notices_a_deletion_when_its_memory_is_old(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "2", cache_ttl_s="0") as server:
        ident = server.upload(jpg(quadrants()))
        for _ in range(30):  # both processes know the image now
            assert server.get(f"/image/{ident}.jpg").status_code == 200
        with server.client() as client:
            assert client.delete(f"/image/{ident}").status_code == 200
        for number in range(30):  # new sizes and the original, in whichever process
            for target in (f"/image/{number + 5}x/{ident}.jpg", f"/image/{ident}.jpg"):
                answer = server.get(target)
                assert answer.status_code == 404, answer.text
