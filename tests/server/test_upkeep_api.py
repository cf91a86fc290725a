"""Searching, deleting, having back and dropping variants over HTTP; and what is refused."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tests.engine.pictures import encoded, film, jpg, quadrants
from tests.server.running import ANSWER_S, Server, ask, children, running
from tests.waiting import WAIT_S, until

SMALL = jpg(quadrants(60, 40))
KEY = "a-key-of-many-characters"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("data") / "data", undelete_s="600", api_keys=KEY) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=ANSWER_S, headers={"authorization": f"Bearer {KEY}"}) as opened:
        yield opened


def upload(client: httpx.Client, ident: str, metadata: str = "", name: str = "a.jpg") -> None:
    answer = client.post("/upload", files={"image": (name, SMALL)}, data={"ident": ident, "metadata": metadata})
    assert answer.status_code == 201, answer.text


def test_images_are_searched_page_by_page(client: httpx.Client) -> None:
    for number in range(5):
        upload(client, f"s{number}", f'{{"album": "{"even" if number % 2 == 0 else "odd"}"}}', f"Sea-{number}.jpg")

    def idents(**options: str) -> list[str]:
        answer = client.get("/images", params=options)
        assert answer.status_code == 200, answer.text
        return [image["ident"] for image in answer.json()["content"]["images"]]

    assert idents(**{"meta.album": "even"}) == ["s4", "s2", "s0"]
    assert idents(filename="sea-3") == ["s3"]
    first = client.get("/images", params={"meta.album": "even", "limit": "2"}).json()["content"]
    assert first["before"] == "s2"
    last = client.get("/images", params={"meta.album": "even", "limit": "2", "before": "s2"}).json()["content"]
    assert ([image["ident"] for image in last["images"]], last["before"]) == (["s0"], None)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("colour=red", "'colour'"), ("limit=0", "1 to 1000"), ("limit=many", "1 to 1000"), ("order=best", "newest"),
        ("smallest=big", "bytes"), ("created_from=soon", "2026-11-21"), ("filename=a&order=largest", "filename"),
        ("meta.a=1&meta.a=2", "twice"),
    ],
)  # fmt: skip
def test_a_wrong_search_is_told(client: httpx.Client, query: str, said: str) -> None:
    answer = client.get(f"/images?{query}")
    assert (answer.status_code, answer.json()["status"]) == (400, "error")
    assert said in answer.json()["content"]


def test_who_may_not_write_may_not_list(server: Server) -> None:
    for method, path in (("GET", "/images"), ("POST", "/undelete/x"), ("DELETE", "/variants/x")):
        assert ask(method, server.url + path).status_code == 401


def test_a_deleted_image_is_had_back(client: httpx.Client) -> None:
    upload(client, "gone")
    assert client.delete("/image/gone").status_code == 200
    assert client.get("/image/gone.jpg").status_code == 404
    answer = client.post("/undelete/gone")
    assert (answer.status_code, answer.json()["content"]["ident"]) == (200, "gone")
    assert client.get("/image/gone.jpg").content == SMALL
    assert client.post("/undelete/gone").status_code == 404


def test_variants_are_dropped_and_made_again(client: httpx.Client) -> None:
    upload(client, "many")
    for width in (10, 11, 12):
        assert client.get(f"/image/{width}x/many.jpg").status_code == 200
    until(lambda: len(client.get("/info/many").json()["content"]["variants"]) == 3)
    assert client.delete("/variants/many").json()["content"]["dropped"] == 3
    assert client.get("/info/many").json()["content"]["variants"] == []
    assert client.get("/image/10x/many.jpg").status_code == 200
    assert client.delete("/variants/nobody").status_code == 404


def test_an_unknown_field_is_told_and_nothing_is_stored(client: httpx.Client) -> None:
    answer = client.post("/upload", files={"image": ("a.jpg", SMALL)}, data={"idnet": "typo"})
    assert answer.status_code == 400
    assert "'idnet'" in answer.json()["content"]
    assert "ident" in answer.json()["content"]


@pytest.mark.parametrize("path", ["/image/plain.jpg", "/resize/plain.jpg", "/sync/plain.jpg"])
def test_a_post_without_a_body_leaves_all_to_the_defaults(client: httpx.Client, path: str) -> None:
    client.post("/upload", files={"image": ("a.jpg", SMALL)}, data={"ident": "plain"})
    assert client.post(path).json() == {"status": "ok", "content": {"ident": "plain", "sizes": []}}


@pytest.mark.parametrize("size", ["8192x8192", "8000x7000"])
def test_a_size_that_no_image_could_have_is_refused_before_anything_is_stored(
    client: httpx.Client, size: str
) -> None:
    answer = client.post("/upload", files={"image": ("a.jpg", SMALL)}, data={"ident": "huge", "sizes": size})
    assert answer.status_code == 400
    assert "megapixels" in answer.json()["content"]
    assert client.get("/info/huge").status_code == 404


@pytest.mark.parametrize("name", ["a.bin", "a.so", "a.dat", "blob"])
def test_a_name_that_says_nothing_of_pictures_is_fine(client: httpx.Client, name: str) -> None:
    answer = client.post("/upload", files={"image": (name, SMALL)})
    assert answer.status_code == 201, answer.text


def test_a_store_that_was_moved_away_is_not_ready(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        assert server.get("/readyz").status_code == 200
        (tmp_path / "data" / "images").rename(tmp_path / "elsewhere")
        assert server.get("/readyz").status_code == 503
        (tmp_path / "elsewhere").rename(tmp_path / "data" / "images")
        assert server.get("/readyz").status_code == 200


def test_a_deletion_by_another_process_is_seen_at_once(tmp_path: Path) -> None:
    from lazypix import Library

    with running(tmp_path / "data", cache_ttl_s="600") as server:
        server.upload(SMALL, ident="cat")
        assert server.get("/image/20x/cat.jpg").status_code == 200
        assert "cache" in server.get("/image/20x/cat.jpg").headers["server-timing"]
        with Library.open(tmp_path / "data") as library:
            library.delete("cat")
        assert server.get("/image/20x/cat.jpg").status_code == 404


def test_heavy_work_of_clients_that_went_away_holds_up_nobody(tmp_path: Path) -> None:
    """Each of the films takes a renderer for a second and more: one of them is begun, the others never are."""
    heavy = film([(n * 5 % 255, n * 9 % 255, n * 13 % 255) for n in range(48)], size=(1000, 1000))
    settings = {"renderers": "2", "max_pixels": "60000000", "render_deadline_s": "60", "log_level": "debug"}
    with running(tmp_path / "data", **settings) as server, ExitStack() as stack:
        server.upload(heavy, ident="heavy")
        server.upload(encoded(quadrants(300, 200)), ident="light")
        pids = children(server.pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        clients = [socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) for _ in range(8)]
        for number, client in enumerate(clients):
            stack.enter_context(client)
            client.sendall(f"GET /image/{900 + number}x/heavy.gif HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        until(lambda: waiting(server) == 8)
        stack.close()
        until(lambda: waiting(server) == 1, otherwise=lambda: f"{waiting(server)} wait for nobody")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert server.get("/image/50x/light.jpg").status_code == 200
        server.upload(SMALL, ident="new")
        until(lambda: waiting(server) == 0, WAIT_S)
        assert server.log.read_text().count("rendering heavy/") == 1


def waiting(server: Server) -> int:
    """How many variants are being made, or wait for that."""
    return int(float(server.get("/metrics").text.partition("\nlazypix_queue ")[2].split()[0]))
