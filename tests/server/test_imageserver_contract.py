"""What ImageServer's document promises, asked for with curl as the document does."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from tests.engine.pictures import (
    bands,
    corners_of,
    distance,
    encoded,
    jpg,
    looks_like,
    oriented,
    quadrants,
    see_through,
)
from tests.server.running import Server, program
from tests.waiting import WAIT_S, until

IDENT = "1c449b644ab111e3937900163e200a0a"
UPLOADED = b'{"status": "ok", "content": {"ident": "%s", "sizes": [["100", "50"], ["150", "<60"]]}}' % IDENT.encode()
SIZES = "100x50,150x<60"


def curl(*arguments: str) -> bytes:
    done = subprocess.run([program("curl"), "-sS", *arguments], capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fetched(server: Server, target: str) -> Image.Image:
    picture = Image.open(io.BytesIO(curl(f"{server.url}{target}")))
    picture.load()
    return picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "photo.jpg").write_bytes(jpg(quadrants(600, 400)))
    return folder


def test_the_documented_calls_give_the_documented_answers_byte_for_byte(server: Server, folder: Path) -> None:
    photo = folder / "photo.jpg"
    form = ("-F", f"ident={IDENT}", "-F", f"sizes={SIZES}")
    assert curl("-F", f"image=@{photo}", *form, f"{server.url}/upload") == UPLOADED
    assert curl("-F", f"sizes={SIZES}", f"{server.url}/image/{IDENT}.jpg") == UPLOADED
    assert curl("-d", f"sizes={SIZES}", f"{server.url}/resize/{IDENT}.jpg") == UPLOADED
    assert curl("-d", f"sizes={SIZES}", f"{server.url}/sync/{IDENT}.jpg") == UPLOADED
    for query, size in (("?width=50&height=0", (50, 33)), ("?width=50&height=<50", (50, 33)), ("", (600, 400))):
        assert fetched(server, f"/image/{IDENT}.jpg{query}").size == size
    assert fetched(server, f"/image/50/{IDENT}.jpg").size == (50, 33)
    assert fetched(server, f"/image/60/50/{IDENT}.jpg").size == (60, 50)
    assert curl(f"{server.url}/image/{IDENT}.jpg") == photo.read_bytes()


def test_without_sizes_none_are_echoed_and_an_ident_is_made(server: Server, folder: Path) -> None:
    answer = json.loads(curl("-F", f"image=@{folder / 'photo.jpg'}", f"{server.url}/upload"))
    assert answer["status"] == "ok"
    assert answer["content"]["sizes"] == []
    assert len(answer["content"]["ident"]) == 32


def test_the_image_can_be_sent_in_every_form(server: Server, folder: Path) -> None:
    photo, text = folder / "photo.jpg", folder / "text"
    encoded_photo = base64.b64encode(photo.read_bytes()).decode()
    forms: list[tuple[str, ...]] = [("-F", f"image=@{photo}"), ("-F", f"image=<{photo}")]
    forms.append(("--data-urlencode", f"image@{photo}"))
    for number, words in enumerate((encoded_photo, f"data:image/jpeg;base64,{encoded_photo}")):
        text.with_suffix(f".{number}").write_text(words)
        text.with_suffix(f".{number}.form").write_text(f"image={words}")
        forms.append(("-F", f"image=<{text.with_suffix(f'.{number}')}"))
        forms.append(("--data-urlencode", f"image@{text.with_suffix(f'.{number}')}"))
        forms.append(("-d", f"@{text.with_suffix(f'.{number}.form')}"))  # with bare plus signs
    for form in forms:
        answer = json.loads(curl(*form, f"{server.url}/upload"))
        assert answer["status"] == "ok", (form, answer)
        assert curl(f"{server.url}/image/{answer['content']['ident']}.jpg") == photo.read_bytes(), form


def test_a_taken_ident_is_refused_and_the_old_bytes_stay(server: Server) -> None:
    first, second = jpg(quadrants(60, 40)), jpg(quadrants(90, 40))
    server.upload(first, ident="mine")
    with server.client() as client:
        for body in (first, second):
            answer = client.post("/upload", files={"image": body}, data={"ident": "mine"})
            assert answer.status_code == 409
            assert answer.json() == {
                "status": "error", "content": "The ident mine is taken; existing data is never replaced",
            }  # fmt: skip
    assert server.get("/image/mine.jpg").content == first


def test_cover_crops_the_middle_and_enlarges_small_images(server: Server) -> None:
    wide = server.upload(encoded(bands(320, 80)))
    picture = server.picture(f"/image/{wide}.jpg?width=160&height=80")
    assert picture.size == (160, 80)
    shades = [picture.getpixel((x, 40))[0] for x in (4, 156)]  # type: ignore[index]
    assert shades == pytest.approx([4 * 17, 11 * 17], abs=6)  # columns 4..11 of 16
    assert server.picture(f"/image/{wide}.jpg?width=1000&height=500").size == (1000, 500)
    assert server.picture(f"/image/{wide}.jpg?width=640&height=0").size == (640, 160)


def test_a_square_of_a_tall_image_loses_one_part_above_and_three_below(server: Server) -> None:
    tall = server.upload(encoded(bands(80, 160)))
    square = server.picture(f"/image/{tall}.jpg?width=80&height=80")
    shades = [square.getpixel((40, y))[0] for y in (4, 76)]  # type: ignore[index]
    assert shades == pytest.approx([2 * 17, 9 * 17], abs=6)  # rows 20..100 of 160: bands 2..9
    middle = server.picture(f"/image/{tall}.jpg?width=80&height=120")
    assert middle.getpixel((40, 4))[0] == pytest.approx(2 * 17, abs=6)  # type: ignore[index]  # rows 20..140


def test_a_limit_of_height_keeps_the_top(server: Server) -> None:
    tall = server.upload(encoded(bands(80, 160)))
    top = server.picture(f"/image/{tall}.jpg?width=40&height=<40")
    assert top.size == (40, 40)
    assert [top.getpixel((20, y))[0] for y in (2, 37)] == pytest.approx([0, 7 * 17], abs=6)  # type: ignore[index]
    assert server.picture(f"/image/{tall}.jpg?width=40&height=<200").size == (40, 80)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_variants_are_upright_whatever_the_camera_did(server: Server, orientation: int) -> None:
    upright = quadrants(240, 160)
    ident = server.upload(oriented(upright, orientation))
    for query, size in (("width=120&height=0", (120, 80)), ("width=60&height=60", (60, 60))):
        picture = server.picture(f"/image/{ident}.jpg?{query}")
        assert picture.size == size
        assert looks_like(corners_of(picture), corners_of(upright))


def test_transparency_lies_on_white(server: Server) -> None:
    ident = server.upload(encoded(see_through(60, 40)))
    picture = server.picture(f"/image/{ident}.jpg?width=30&height=0")
    assert picture.mode == "RGB"
    assert distance(picture.getpixel((27, 10)), (255, 255, 255)) < 8  # type: ignore[arg-type]


def test_variants_are_progressive_jpeg_of_quality_90(server: Server) -> None:
    ident = server.upload(encoded(quadrants(300, 200)))
    picture = server.picture(f"/image/{ident}.jpg?width=200&height=100")
    assert picture.format == "JPEG"
    assert picture.info.get("progressive")
    assert server.get(f"/image/{ident}.jpg?width=200&height=100").headers["content-type"] == "image/jpeg"

    def names() -> list[str]:
        return [variant["name"] for variant in server.get(f"/info/{ident}").json()["content"]["variants"]]

    until(lambda: len(names()) > 0)  # it is sent first, and stored then
    assert names() == ["200x100,fit=cover,quality=90.jpg"]
    # The encoder's own scale: the sum of the luminance table at quality 90 (as Pillow reads it back).
    table = picture.quantization[0]  # type: ignore[attr-defined]
    ninety = Image.open(io.BytesIO(encoded(quadrants(), "jpg", quality=90))).quantization[0]  # type: ignore[attr-defined]
    assert sum(table) == pytest.approx(sum(ninety), rel=0.25)


def test_every_answer_allows_every_origin(server: Server) -> None:
    ident = server.upload(jpg(quadrants()))
    for target in (f"/image/{ident}.jpg", f"/image/{ident}.jpg?width=9&height=9", "/image/none.jpg", "/nowhere"):
        assert server.get(target).headers["access-control-allow-origin"] == "*"


def test_sizes_named_at_upload_are_made_ahead_and_can_be_had_at_once(server: Server) -> None:
    ident = server.upload(jpg(quadrants(600, 400)), sizes="40x30,50x<20")
    assert server.picture(f"/image/{ident}.jpg?width=40&height=30").size == (40, 30)
    stored = server.data / "images" / ident / "50x20,fit=top,quality=90.jpg"
    until(stored.is_file, WAIT_S, lambda: f"{list(stored.parent.iterdir())}")


def test_sizes_named_later_are_made_ahead(server: Server) -> None:
    ident = server.upload(jpg(quadrants(600, 400)))
    with server.client() as client:
        answer = client.post(f"/resize/{ident}.jpg", data={"sizes": "44x0"})
    assert answer.content == b'{"status": "ok", "content": {"ident": "%s", "sizes": [["44", "0"]]}}' % ident.encode()
    stored = server.data / "images" / ident / "44x,fit=outside,quality=90.jpg"
    until(stored.is_file, WAIT_S, lambda: f"{list(stored.parent.iterdir())}")
