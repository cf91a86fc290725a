"""`sync`, `callback` and `POST /sync` over HTTP: replicas get what is uploaded, receivers are told once, signed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.engine.pictures import jpg, quadrants
from tests.files import files_in
from tests.receiving import Received, Receiver, receiving
from tests.server.running import ANSWER_S, Server, ask, running
from tests.waiting import WAIT_S, until

from lazypix.signing.messages import ID, SIGNATURE, TIMESTAMP, is_signed

PHOTO = jpg(quadrants(600, 400))
SECRET = "a-secret-for-tests-of-callbacks"
KEY = "a-key-of-many-characters"


def replicas(folder: Path) -> str:
    """Two replicas: one as the first seed's cloud, one with everything."""
    given = [
        {"name": "cloud", "store": f"file://{folder}/cloud", "layout": "imageserver"},
        {"name": "mirror", "store": f"file://{folder}/mirror", "what": "all"},
    ]
    return json.dumps(given)


def settings(receiver: Receiver, **more: str) -> dict[str, str]:
    allowed = {"outbound_allow": "127.0.0.1", "outbound_ports": f"80,443,{receiver.port}"}
    return allowed | {"callback_secret": SECRET} | more


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as running_receiver:
        yield running_receiver


@pytest.fixture(scope="module")
def server(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sync")
    with running(folder / "data", **settings(receiver, replicas=replicas(folder), api_keys=KEY)) as started:
        yield started


def post(server: Server, route: str, **data: str) -> httpx.Response:
    files = {"image": PHOTO} if route == "upload" else {"sizes": (None, data.pop("sizes", ""))}
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.post(f"{server.url}/{route}", files=files, data=data, headers=headers, timeout=ANSWER_S)


def stored(server: Server, name: str) -> set[str]:
    root = server.data.parent / name
    return {str(file.relative_to(root)) for file in files_in(root) if "." in file.name and "/." not in str(file)}


def told(receiver: Receiver, path: str, number: int = 1) -> list[Received]:
    def mine() -> list[Received]:
        return [request for request in receiver.requests if urlsplit(request.target).path == path]

    until(lambda: len(mine()) >= number, WAIT_S, lambda: f"{receiver.requests}")
    return mine()


def check_signature(request: Received, body: bytes) -> None:
    headers = request.headers
    assert is_signed(
        [SECRET.encode()], id=headers[ID], timestamp=headers[TIMESTAMP], signature=headers[SIGNATURE], body=body,
        now_s=time.time(),
    )  # fmt: skip


def test_an_upload_reaches_the_replicas_and_the_callback_is_told_then(server: Server, receiver: Receiver) -> None:
    answer = post(server, "upload", ident="one", sizes="100x50,150x<60", callback=f"{receiver.url}/one?for=me")
    assert answer.json()["content"] == {"ident": "one", "sizes": [["100", "50"], ["150", "<60"]]}
    assert "lazypix-notice" not in answer.headers
    (request,) = told(receiver, "/one")
    assert {"image/one.jpg", "image/100/one.jpg", "image/150/one.jpg"} <= stored(server, "cloud")
    assert "one/origin.jpg" in stored(server, "mirror")
    assert (server.data.parent / "cloud" / "image" / "one.jpg").read_bytes() == PHOTO
    made = server.get("/image/100/50/one.jpg").content
    assert (server.data.parent / "cloud" / "image" / "100" / "one.jpg").read_bytes() == made
    said = json.loads(request.body)
    assert (request.method, request.target, said["id"]) == ("POST", "/one?for=me", request.headers[ID])
    assert (said["type"], said["ident"], said["sizes"]) == ("image.synced", "one", [["100", "50"], ["150", "<60"]])
    assert said["replicas"] == {"cloud": "done", "mirror": "done"}
    check_signature(request, request.body)


def test_what_is_not_to_be_synced_is_synced_when_it_is_asked_for(server: Server, receiver: Receiver) -> None:
    assert post(server, "upload", ident="later", sync="false", callback=f"{receiver.url}/unsynced").is_success
    (request,) = told(receiver, "/unsynced")
    assert json.loads(request.body)["replicas"] == {}
    assert "image/later.jpg" not in stored(server, "cloud")
    answer = post(server, "sync/later.jpg", sizes="44x0", callback=f"{receiver.url}/synced")
    assert answer.json()["content"] == {"ident": "later", "sizes": [["44", "0"]]}
    told(receiver, "/synced")
    assert {"image/later.jpg", "image/44/later.jpg"} <= stored(server, "cloud")


@pytest.mark.parametrize("route", ["image", "resize"])
def test_sizes_named_later_reach_the_replicas_too(server: Server, receiver: Receiver, route: str) -> None:
    ident = f"resized-{route}"
    assert post(server, "upload", ident=ident).is_success
    assert post(server, f"{route}/{ident}.jpg", sizes="30x20", callback=f"{receiver.url}/{ident}").is_success
    told(receiver, f"/{ident}")
    assert f"image/30/{ident}.jpg" in stored(server, "cloud")
    assert f"{ident}/30x20,fit=cover,quality=90.jpg" in stored(server, "mirror")


def test_every_variant_reaches_a_replica_of_everything(server: Server) -> None:
    assert post(server, "upload", ident="asked").is_success
    assert server.get("/image/77x/asked.webp").status_code == 200
    until(lambda: "asked/77x.webp" in stored(server, "mirror"), WAIT_S, lambda: f"{stored(server, 'mirror')}")
    assert not any("77" in key for key in stored(server, "cloud"))


def test_a_deletion_reaches_them(server: Server, receiver: Receiver) -> None:
    assert post(server, "upload", ident="gone", sizes="20x20", callback=f"{receiver.url}/gone").is_success
    told(receiver, "/gone")
    deleted = httpx.delete(f"{server.url}/image/gone", headers={"authorization": f"Bearer {KEY}"}, timeout=ANSWER_S)
    assert deleted.status_code == 200

    def left() -> set[str]:
        return {key for name in ("cloud", "mirror") for key in stored(server, name) if "gone" in key}

    until(lambda: not left(), WAIT_S, lambda: f"{left()}")


def test_a_receiver_that_fails_is_told_again_and_knows_it_by_the_id(server: Server, receiver: Receiver) -> None:
    receiver.statuses[:] = [500]
    assert post(server, "upload", ident="again", callback=f"{receiver.url}/again").is_success
    first, second = told(receiver, "/again", 2)
    assert first.headers[ID] == second.headers[ID]
    assert json.loads(first.body)["id"] == json.loads(second.body)["id"]
    check_signature(second, second.body)


@pytest.mark.parametrize("route", ["upload", "image/fields.jpg", "resize/fields.jpg", "sync/fields.jpg"])
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("sync", "perhaps", "true, false"), ("callback", "ftp://x/", "http://"), ("callback", "nonsense", "http://"),
        ("callback", "http://[", "http://"), ("callback", "http://u:p@x.test/", "a login"),
        ("callback", "http://x.test:22/", "Port 22"), ("callback", "http://169.254.169.254/", "link-local"),
        ("callback", "http://x.test/" + "a" * 2048, "up to 2048"),
    ],
)  # fmt: skip
def test_wrong_fields_are_refused_before_anything_is_done(
    server: Server, route: str, field: str, value: str, said: str
) -> None:
    if server.get("/info/fields").status_code == 404:
        post(server, "upload", ident="fields")
    answer = post(server, route, **{field: value}, **({"ident": "wrong"} if route == "upload" else {}))
    assert answer.status_code == 400
    assert said in answer.json()["content"]
    assert server.get("/info/wrong").status_code == 404


def test_metrics_tell_of_jobs_replicas_and_the_queue(server: Server) -> None:
    idle = ('lazypix_replica_jobs{replica="cloud"} 0.0', "lazypix_queue 0.0")
    figures = _figures(server, lambda text: all(line in text for line in idle))
    assert 'lazypix_replica_lag_seconds{replica="mirror"}' in figures
    assert ask("GET", f"{server.url}/metrics").status_code == 401


def _figures(server: Server, enough: Any) -> str:
    found = ""

    def look() -> bool:
        nonlocal found
        answer = httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {KEY}"}, timeout=ANSWER_S)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        found = answer.text
        return bool(enough(found))

    until(look, WAIT_S, lambda: found)
    return found


def test_without_replicas_the_callback_is_told_when_the_sizes_are_made(receiver: Receiver, tmp_path: Path) -> None:
    with running(tmp_path / "data", **settings(receiver, callback_method="GET")) as alone:
        answer = post(alone, "upload", ident="alone", sizes="40x30", callback=f"{receiver.url}/alone?x=1#part")
        assert answer.is_success
        (request,) = told(receiver, "/alone")
        assert (tmp_path / "data" / "images" / "alone" / "40x30,fit=cover,quality=90.jpg").is_file()
        query = urlsplit(request.target).query
        said = parse_qs(query)
        assert (request.method, request.body) == ("GET", b"")
        assert (said["x"], said["ident"], said["sizes"]) == (["1"], ["alone"], ["40x30"])
        assert said["id"] == [request.headers[ID]]
        check_signature(request, query.encode())
        assert ask("GET", f"{alone.url}/metrics").status_code == 200
        assert ask("GET", f"{alone.url}/metrics", headers={"origin": "https://evil.test"}).status_code == 403
