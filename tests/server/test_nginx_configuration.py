"""What `lazypix nginx` prints, in a real nginx in front of a real server."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.engine.pictures import encoded, noise, quadrants
from tests.files import files_in
from tests.forked import run_module
from tests.ports import free_port
from tests.server.nginx import command, get_raw, nginx
from tests.server.running import ANSWER_S, Server, clean_environment, error_of, kill, running
from tests.waiting import WAIT_S, until

KEY = "a-key-of-enough-characters"
AUTHORISED = {"authorization": f"Bearer {KEY}"}
CHROME = "image/avif,image/webp,image/*,*/*;q=0.8"
ITS_OWN = {"date", "server", "connection", "keep-alive", "server-timing"}
"""Headers that may differ between nginx' answers and lazypix'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """nginx with our configuration, and the server behind it."""

    port: int
    server: Server

    def request(self, method: str, target: str, **options: Any) -> httpx.Response:
        return httpx.request(method, f"http://127.0.0.1:{self.port}{target}", timeout=ANSWER_S, **options)

    def get(self, target: str, **headers: str) -> httpx.Response:
        return self.request("GET", target, headers={n.replace("_", "-"): v for n, v in headers.items()})

    def upload(self, image: bytes, ident: str, headers: dict[str, str] = AUTHORISED) -> httpx.Response:
        return self.request(
            "POST", "/upload", files={"image": (f"{ident}.png", image)}, data={"ident": ident}, headers=headers
        )

    def stored(self, target: str, name: str) -> None:
        """Have a variant made, and wait until its file is there."""
        assert self.get(target).status_code == 200
        until(lambda: any(file.name == name for file in files_in(self.server.data / "images")))


def printed(data: Path, port: int, upstream: int, *arguments: str, **settings: str) -> str:
    options = ["--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{upstream}"]
    words = ["nginx", "--data", str(data), *options, *arguments]
    done = run_module("lazypix", words, cwd=data.parent, env=clean_environment(settings))
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@contextmanager
def fronted(folder: Path, cached: str = "60s", **settings: str) -> Iterator[Front]:
    """Run a server with these settings behind the nginx that belongs to them."""
    settings = {"access_log": "true"} | settings
    with running(folder / "data", **settings) as server:
        port = free_port()
        text = printed(server.data, port, server.port, "--cache-dir", str(folder / "cache"), **settings)
        with nginx(folder, text.replace("200 60s", f"200 {cached}"), port):
            yield Front(port=port, server=server)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with fronted(tmp_path_factory.mktemp("keyed"), api_keys=KEY, urls="open") as front:
        yield front


@pytest.fixture(scope="module")
def handing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    settings = {"api_keys": KEY, "accel_redirect": "/files/", "key_prefix": "a b/", "cache_ttl_s": "60"}
    with fronted(tmp_path_factory.mktemp("handing"), **settings) as front:
        yield front


def compared(answer: httpx.Response, *without: str) -> dict[str, str]:
    names = [name.lower() for name, _ in answer.headers.multi_items()]
    assert len(names) == len(set(names)), f"a header came twice: {names}"
    return {name: value for name, value in answer.headers.items() if name not in ITS_OWN | set(without)}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"api_keys": KEY, "urls": "open", "host": "0.0.0.0"},
        {"accel_redirect": "/lazypix-files/"},
        {"key_prefix": 'im"g\\ä/', "key_shard": "3"},
        {"stored_images": "redirect"},
    ],
)
def test_nginx_takes_the_configuration(tmp_path: Path, settings: dict[str, str]) -> None:
    port = free_port()
    cache = str(tmp_path / "cache")
    text = printed(
        tmp_path / 'da"t a', port, 8000, "--server-name", "a.example b.example", "--cache-dir", cache, **settings
    )
    done = subprocess.run([*command(tmp_path, text), "-t"], capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert b"warn" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--upstream", "a;b"], "upstream='a;b'"),
        (["--listen", "80; deny all"], "listen="),
        (["--server-name", "a {"], "server_name="),
        (["--cache-dir", "/var/$cache"], "without $"),
    ],
)
def test_what_nginx_cannot_be_told_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run_module("lazypix", ["nginx", *arguments], cwd=tmp_path, env=clean_environment({}))
    assert done.returncode == 2
    assert words in done.stderr.decode()


# --- writing ---------------------------------------------------------------------------------------------------


def test_with_keys_those_who_have_one_may_write(keyed: Front) -> None:
    refused = keyed.upload(encoded(quadrants()), "mine", {})
    assert refused.status_code == 401
    assert keyed.upload(encoded(quadrants()), "mine").status_code == 201
    assert keyed.get("/info/mine").json()["content"]["ident"] == "mine"
    assert keyed.request("DELETE", "/image/mine").status_code == 401
    assert keyed.request("DELETE", "/image/mine", headers=AUTHORISED).status_code == 200
    assert keyed.get("/image/mine.png").status_code == 404


def test_without_keys_nobody_may_write(tmp_path: Path) -> None:
    with fronted(tmp_path) as front:
        front.server.upload(encoded(quadrants()), ident="pic")
        image = encoded(quadrants())
        large = {"content": bytes(32 * 1024 * 1024), "headers": {"content-type": "text/plain"}}
        writes: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/upload", {"files": {"image": image}}),
            ("POST", "/upload", large),
            ("POST", "/image/pic.png", {"data": {"sizes": "10x10"}}),
            ("POST", "/image/10x/pic.png", {}),
            ("DELETE", "/image/pic", {}),
            ("PUT", "/anything", {"content": b"x"}),
            ("GET", "/images", {}),
            ("HEAD", "/%69mages?limit=1", {}),
            ("GET", "//metrics", {}),
        ]
        for method, target, options in writes:
            answer = front.request(method, target, **options)
            assert answer.status_code == 403, (method, target)
            assert method == "HEAD" or "no API keys" in error_of(answer.content)
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-type"] == "application/json"
        assert front.get("/image/pic.png").content == image
        assert front.request("HEAD", "/image/pic.png").status_code == 200
        assert front.get("/info/pic").status_code == front.get("/").status_code == 200
        assert front.request("OPTIONS", "/upload").status_code == 204
        assert '"POST ' not in front.server.log.read_text().replace('"POST /upload HTTP/1.1" 201', "")


def test_without_keys_facts_of_signed_images_are_told_to_nobody(tmp_path: Path) -> None:
    with fronted(tmp_path, urls="signed", url_keys="k:a-secret-of-many-characters") as front:
        front.server.upload(encoded(quadrants()), ident="pic")
        for target in ("/info/pic", "/inf%6f/pic", "/images", "/image/pic.png"):
            assert front.get(target).status_code == 403, target


def test_what_is_too_large_is_told_as_lazypix_does(tmp_path: Path) -> None:
    with fronted(tmp_path, api_keys=KEY, max_bytes="1000000") as front:
        for size in (2_000_000, 20_000_000):  # lazypix' own limit, and nginx'
            answer = front.upload(bytes(size), "large")
            assert answer.status_code == 413
            assert "1000000 bytes" in error_of(answer.content)


def test_a_large_body_that_is_refused_at_once_is_no_bad_gateway(keyed: Front) -> None:
    body, headers = bytes(32 * 1024 * 1024), {**AUTHORISED, "content-type": "text/plain"}
    answer = keyed.request("POST", "/upload", content=body, headers=headers)
    assert answer.status_code == 400
    assert "is not a form" in error_of(answer.content)


# --- files that nginx sends alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [{}, {"key_prefix": "im g/", "key_shard": "2"}])
def test_a_stored_variant_is_sent_without_lazypix_and_with_its_headers(
    tmp_path: Path, layout: dict[str, str]
) -> None:
    with fronted(tmp_path, api_keys=KEY, **layout) as front:
        front.upload(encoded(quadrants()), "pic")
        names = ("40x", "40x,fit=outside,quality=90", "40x20,fit=cover,gravity=0.25:0.75", "rotate=90,quality=30")
        for name in names:
            front.stored(f"/image/{name}/pic.webp", f"{name}.webp")
        ours = {name: front.server.get(f"/image/{name}/pic.webp") for name in names}
        kill(front.server)
        for name in names:
            answer = front.get(f"/image/{name}/pic.webp")
            assert answer.status_code == 200
            assert answer.headers["server-timing"] == "nginx;desc=file"
            assert answer.content == ours[name].content
            assert compared(answer, "etag", "last-modified") == compared(ours[name], "etag", "last-modified")
            assert front.get(f"/image/{name}/pic.webp", if_none_match=answer.headers["etag"]).status_code == 304
            part = front.get(f"/image/{name}/pic.webp", range="bytes=5-9")
            assert (part.status_code, part.content) == (206, answer.content[5:10])
        missing = front.get("/image/41x/pic.webp")
        assert missing.status_code == 502
        assert "try again later" in error_of(missing.content)


def test_only_what_is_spelled_as_its_file_is_sent_alone(keyed: Front) -> None:
    keyed.upload(encoded(quadrants()), "spelled")
    keyed.stored("/image/40x,quality=50/spelled.webp", "40x,quality=50.webp")
    address = "/image/40x,quality=50/spelled.webp"
    assert keyed.get(address).headers["server-timing"] == "nginx;desc=file"
    for target, status in (
        ("/image/40x%2Cquality%3D50/spelled.webp", 200),
        ("/image/quality=50,width=40/spelled.webp", 200),
        (address + "?quality=50", 400),
        ("/image/origin/spelled.png", 400),
        ("/image/full/spelled.png", 200),
        ("/image/spelled.png", 200),
        ("/image/40x,quality=50/spelled", 200),
        ("/image/40x,quality=50/../40x,quality=50/spelled.webp", 404),
    ):
        answer = get_raw(keyed.port, target)
        assert answer.status == status, target
        assert "desc=file" not in answer.headers.get("server-timing", ""), target


def test_a_negotiated_answer_is_cached_for_clients_that_take_the_same(keyed: Front) -> None:
    keyed.upload(encoded(quadrants()), "both")
    for accept, kind in ((CHROME, "image/avif"), ("image/jpeg", "image/jpeg"), (CHROME, "image/avif")):
        answer = keyed.get("/image/40x/both.auto", accept=accept)
        assert answer.headers["content-type"] == kind
        assert answer.headers["vary"] == "accept"
    assert answer.headers["server-timing"] == "nginx;desc=HIT"


def test_the_documented_address_with_a_raw_less_than_sign_goes_through(keyed: Front) -> None:
    keyed.upload(encoded(quadrants()), "raw")
    for was in ("MISS", "HIT"):
        answer = get_raw(keyed.port, "/image/raw.jpg?width=50&height=<50")
        assert answer.status == 200
        assert answer.body[:3] == b"\xff\xd8\xff"
        assert answer.headers["server-timing"] == f"nginx;desc={was}"


# --- the cache -------------------------------------------------------------------------------------------------


def test_of_many_at_once_one_asks_lazypix(keyed: Front) -> None:
    keyed.upload(encoded(noise(1500, 1000)), "crowd")
    many = 12
    together = threading.Barrier(many)
    target = "/image/crowd.avif?width=1200&height=0"

    def ask(_: int) -> httpx.Response:
        together.wait(WAIT_S)
        return keyed.get(target)

    with ThreadPoolExecutor(many) as threads:
        answers = list(threads.map(ask, range(many)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    until(lambda: keyed.server.log.read_text().count(f"GET {target} ") > 0)
    assert keyed.server.log.read_text().count(f"GET {target} ") == 1


def test_what_is_cached_has_lazypix_headers_and_is_sent_while_lazypix_is_away(tmp_path: Path) -> None:
    target = "/image/pic.jpg?width=40&height=<30"
    with fronted(tmp_path, cached="1s", api_keys=KEY) as front:
        front.upload(encoded(quadrants()), "pic")
        ours = front.server.get(target)
        assert compared(front.get(target)) == compared(ours)
        until(lambda: front.get(target).headers["server-timing"] == "nginx;desc=HIT")
        until(lambda: front.get(target).headers["server-timing"] == "nginx;desc=REVALIDATED")
        part = front.get(target, range="bytes=3-9")
        assert (part.status_code, part.content) == (206, ours.content[3:10])
        assert front.get(target, if_none_match=ours.headers["etag"]).status_code == 304
        kill(front.server)
        until(lambda: front.get(target).headers["server-timing"] == "nginx;desc=STALE")
        assert front.get(target).content == ours.content


def test_a_deleted_image_is_gone_at_once_as_a_file_and_soon_from_the_cache(tmp_path: Path) -> None:
    cached, files = "/image/pic.jpg?width=40&height=30", ("/image/40x/pic.webp", "/image/40x,quality=9/pic.webp")
    with fronted(tmp_path, cached="1s", api_keys=KEY) as front:
        front.upload(encoded(quadrants()), "pic")
        for file in files:
            front.stored(file, f"{file.split('/')[2]}.webp")
            assert front.get(file).headers["server-timing"] == "nginx;desc=file"
        assert front.get(cached).status_code == 200
        assert front.request("DELETE", "/image/pic", headers=AUTHORISED).status_code == 200
        for file in files:  # made once through nginx, which may have that in its cache: as for `cached`
            assert front.get(file).headers.get("server-timing") != "nginx;desc=file"
        for target in (cached, *files):
            until(lambda target=target: front.get(target).status_code == 404)  # type: ignore[misc]


# --- files that lazypix hands over -----------------------------------------------------------------------------


def test_what_is_handed_over_has_all_headers_of_lazypix(tmp_path: Path, handing: Front) -> None:
    large = encoded(noise(800, 600))
    assert len(large) > 1024 * 1024
    with running(tmp_path / "plain") as plain:
        plain.upload(large, "large.png", ident="large")
        handing.upload(large, "large")
        targets = {
            "/image/large.png": {},
            "/image/large.jpg?width=60&height=40": {},
            "/image/60x/large.auto": {"accept": "image/webp"},
        }
        for target, headers in targets.items():
            handing.get(target, **headers)  # made by now
            until(lambda t=target, h=headers: "handover" in told(handing.get(t, **h)))  # type: ignore[misc]
            answer, ours = handing.get(target, **headers), plain.get(target, **headers)
            assert answer.content == ours.content
            assert compared(answer, "last-modified") == compared(ours, "last-modified")
            assert answer.headers["last-modified"]
            head = handing.request("HEAD", target, headers=headers)
            assert compared(head) == compared(answer)


def told(answer: httpx.Response) -> str:
    """How the work went; that an answer was remembered which hands over is told as a hit."""
    timing = answer.headers["server-timing"]
    return "handover" if timing == "cache;desc=hit" else timing


def test_ranges_and_conditions_of_what_is_handed_over(handing: Front) -> None:
    large = encoded(noise(700, 600))
    handing.upload(large, "ranges")
    target = "/image/ranges.png"
    whole = handing.get(target)
    tag, modified = whole.headers["etag"], whole.headers["last-modified"]
    for _ in ("first", "remembered"):
        part = handing.get(target, range="bytes=100-199")
        assert (part.status_code, part.content) == (206, large[100:200])
        assert part.headers["content-range"] == f"bytes 100-199/{len(large)}"
        assert compared(part, "content-range", "content-length") == compared(whole, "content-length", "accept-ranges")
        for validator in (tag, modified):
            assert handing.get(target, range="bytes=5-9", if_range=validator).content == large[5:10]
        for validator in ('"other"', "Sat, 01 Jan 2000 00:00:00 GMT"):
            assert handing.get(target, range="bytes=5-9", if_range=validator).status_code == 200
        assert handing.get(target, range=f"bytes={len(large)}-").status_code == 416
        for status, conditions in (
            (304, {"if_none_match": tag}),
            (304, {"if_modified_since": modified}),
            (304, {"if_none_match": f'"other", W/{tag}'}),
            (200, {"if_none_match": '"other"'}),
            (200, {"if_none_match": '"other"', "if_modified_since": modified}),
            (200, {"if_match": tag}),
            (412, {"if_match": '"other"'}),
            (200, {"if_unmodified_since": modified}),
            (412, {"if_unmodified_since": "Sat, 01 Jan 2000 00:00:00 GMT"}),
        ):
            answer = handing.get(target, **conditions)
            assert answer.status_code == status, conditions
            assert answer.headers["etag"] == tag, conditions
            assert answer.content == (large if status == 200 else b""), conditions


def test_the_files_cannot_be_had_directly_and_are_gone_with_the_image(handing: Front) -> None:
    handing.upload(encoded(quadrants()), "secret")
    assert handing.get("/image/secret.png").status_code == 200
    assert handing.get("/files/a%20b/secret/origin.png").status_code == 404
    assert handing.request("DELETE", "/image/secret", headers=AUTHORISED).status_code == 200
    assert handing.get("/image/secret.png").status_code == 404


def test_a_file_that_is_lost_after_lazypix_looked_is_an_error_that_nobody_keeps(handing: Front) -> None:
    handing.upload(encoded(quadrants()), "lost")
    assert handing.get("/image/lost.png").status_code == 200
    (handing.server.data / "images" / "a b" / "lost" / "origin.png").unlink()
    answer = handing.get("/image/lost.png")
    assert answer.status_code == 503, answer.text
    assert "ask again" in error_of(answer.content)
    assert "no-store" in answer.headers["cache-control"]
    assert answer.headers["content-type"] == "application/json"
    assert {"etag", "last-modified"}.isdisjoint(answer.headers)
