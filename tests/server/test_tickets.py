"""Upload tickets at a real server: for pages of other sites, without a key, exactly as signed, and once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.engine.pictures import encoded, jpg, quadrants
from tests.fleet.machines import shared_settings
from tests.programs import ACCESS_KEY, SECRET_KEY, Program
from tests.server.running import Server, ask, error_of, nothing_stored, running, stored_files
from tests.waiting import WAIT_S, until
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.catalog import Catalog, Image
from lazypix.catalog.key_rows import Quotas
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import BadRequest, IdentTaken, NotFound, SettingsError, TicketRefused, TooLarge
from lazypix.signing.links import KeyRing
from lazypix.signing.tickets import Ticket, seal
from lazypix.stores import Blob
from lazypix.stores.addresses import open_store
from lazypix.stores.memory import MemoryStore

KEY = "a-key-of-the-settings"
TICKET_KEY = "t1:a-secret-of-many-characters"
RING = KeyRing.of([TICKET_KEY])
PICTURE = jpg(quadrants(90, 60))
ELSEWHERE = {"Origin": "https://elsewhere.example"}
SIGNING = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"api_keys": KEY, "ticket_keys": TICKET_KEY, "base_url": "https://img.example"}
    with running(tmp_path_factory.mktemp("tickets") / "data", **settings) as started:
        yield started


def signed(client: httpx.Client, **fields: str) -> dict[str, Any]:
    answer = client.post("/tickets", headers=SIGNING, data=fields)
    assert answer.status_code == 201, answer.text
    content: dict[str, Any] = answer.json()["content"]
    return content


def used(client: httpx.Client, ticket: str, image: bytes = PICTURE, **fields: str) -> httpx.Response:
    files = {"image": ("a", image)}
    return client.post("/upload", params={"ticket": ticket}, headers=ELSEWHERE, files=files, data=fields)


def test_a_page_of_another_site_uploads_once_with_a_ticket_and_no_key(server: Server) -> None:
    with server.client() as client:
        told = signed(client, sizes="30x20", metadata='{"who": "me"}')
        assert told["upload"] == {
            "method": "POST", "url": f"https://img.example/upload?ticket={told['ticket']}", "field": "image",
        }  # fmt: skip
        asked = client.options("/upload", headers=ELSEWHERE | {"Access-Control-Request-Method": "POST"})
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "lazypix-ticket" in asked.headers["access-control-allow-headers"]
        taken = used(client, told["ticket"])
        assert taken.status_code == 201
        assert taken.headers["access-control-allow-origin"] == "*"
        assert taken.json()["content"] == {"ident": told["ident"], "sizes": [["30", "20"]]}
        info = client.get(f"/info/{told['ident']}").json()["content"]
        assert info["metadata"] == {"who": "me"}
        until(lambda: any(told["ident"] in name and "/30x20" in name for name in stored_files(server.data)))
        with nothing_stored(server.data):
            again = used(client, told["ticket"])
            assert (again.status_code, again.headers["lazypix-error"]) == (409, "ident_taken")


def test_a_ticket_may_come_in_a_header(server: Server) -> None:
    with server.client() as client:
        ticket = signed(client, ident="by-header")["ticket"]
        headers = {"Lazypix-Ticket": ticket} | ELSEWHERE
        assert client.post("/upload", headers=headers, files={"image": PICTURE}).status_code == 201


def test_what_a_ticket_does_not_allow_is_refused_and_nothing_is_stored(server: Server) -> None:
    with server.client() as client:
        small = signed(client, max_bytes=str(len(PICTURE) - 1))["ticket"]
        few = signed(client, max_pixels=str(90 * 60 - 1))["ticket"]
        webp = signed(client, formats="webp, PNG")["ticket"]
        any_ = signed(client)["ticket"]
        expired = seal(RING, Ticket(ident="late", expires_at=int(time.time()) - 1))
        foreign = seal(KeyRing.of(["t1:another-secret-of-characters"]), Ticket(ident="a", expires_at=2**31))
        with nothing_stored(server.data):
            for ticket, status, text in (
                (small, 413, f"over the limit of {len(PICTURE) - 1} bytes"),
                (few, 413, "pixels"),
                (webp, 415, "This is a jpg image; accepted here: webp, png"),
                (expired, 403, "expired"),
                (foreign, 403, "not signed here"),
                (any_[:-1] + ("A" if any_[-1] != "A" else "B"), 403, "not signed here"),
                ("nonsense", 403, "malformed"),
                ("", 403, "malformed"),
            ):
                answer = used(client, ticket)
                assert (answer.status_code, text in error_of(answer.content)) == (status, True), answer.text
            assert used(client, any_, PICTURE[:-30]).status_code == 422
            for field in ("ident", "metadata", "sizes", "callback", "url"):
                assert used(client, any_, PICTURE, **{field: "x"}).status_code == 400
            assert client.post("/upload", params={"ticket": any_}, data={"nothing": ""}).status_code == 400
        assert used(client, webp, encoded(quadrants(), "webp")).status_code == 201
        assert used(client, any_).status_code == 201


def test_who_signs_needs_a_key_and_is_told_what_is_wrong(server: Server) -> None:
    with server.client() as client:
        assert client.post("/tickets").status_code == 401
        assert signed(client)["expires"] > signed(client, expires_s="60")["expires"]
        for fields, text in (
            ({"ident": "a/b"}, "Bad ident"),
            ({"ident": "by-header"}, ""),
            ({"expires_s": "0"}, "accepted: 1 to 604800 seconds"),
            ({"expires_s": "soon"}, "accepted: a number"),
            ({"max_bytes": "0"}, "accepted: 1 or more"),
            ({"formats": "bmp"}, "formats='bmp' is not accepted; accepted: jpg"),
            ({"sizes": "big"}, "Unknown size"),
            ({"metadata": "[]"}, "a JSON object"),
            ({"metadata": json.dumps({"text": "x" * 9000})}, "shorter metadata"),
            ({"direct": "yes"}, "accepted: true, false"),
            ({"direct": "true"}, "takes nothing from clients; accepted: S3"),
            ({"colour": "red"}, "Unknown field 'colour'; accepted: ident"),
        ):
            answer = client.post("/tickets", headers=SIGNING, data=fields)
            assert answer.status_code in (400, 409), (fields, answer.text)
            assert text in error_of(answer.content)
        assert client.post("/finalise").status_code == 400
        assert client.post("/finalise", params={"ticket": "x"}).status_code == 403
        assert TICKET_KEY not in server.log.read_text()


def test_an_image_counts_for_the_key_that_signed(server: Server) -> None:
    with closing(Catalog.sqlite(server.data / "catalog.sqlite")) as catalog:
        record, key = catalog.keys.make("shop", ["upload"], Quotas(max_images=1))
        with server.client() as client:
            headers = {"Authorization": f"Bearer {key.text}"}
            tickets = [client.post("/tickets", headers=headers).json()["content"]["ticket"] for _ in range(3)]
            assert used(client, tickets[0]).status_code == 201
            over = used(client, tickets[1])
            assert (over.status_code, over.headers["lazypix-error"]) == (403, "quota_exceeded")
            assert client.post("/tickets", headers=headers).status_code == 403
            catalog.keys.revoke(record.id)
            assert used(client, tickets[2]).status_code == 401
        assert catalog.keys.get(record.id).images == 1


def test_a_server_without_keys_signs_none(tmp_path: Path) -> None:
    with Library.open(tmp_path) as library:
        with pytest.raises(SettingsError, match="ticket_keys, and there are none"):
            library.ticket()
        with pytest.raises(TicketRefused):
            library.finalise(seal(RING, Ticket(ident="a", expires_at=2**31)))


# --- straight to the store -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(seaweedfs: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Library]]:
    """A server on S3, and a library on the same catalog and store."""
    data = tmp_path_factory.mktemp("direct") / "data"
    settings = shared_settings(seaweedfs, f"sqlite:///{data.parent}/catalog.sqlite", api_keys=KEY)
    with running(data, ticket_keys=TICKET_KEY, **settings) as server:
        store = open_store(settings["store"], secrets={"access_key": ACCESS_KEY, "secret_key": SECRET_KEY})
        with Library.open(data, catalog=settings["catalog"], store=store, ticket_keys=RING, tidies=False) as library:
            yield server, library


def put(address: dict[str, Any], body: bytes) -> None:
    assert address["method"] == "PUT"
    ask("PUT", address["url"], content=body, headers=address["headers"]).raise_for_status()


def staged(library: Library) -> list[str]:
    return [blob.key for blob in library.store.list("upload.staged/")]


def test_an_image_is_put_straight_to_the_store_and_finalised(fleet: tuple[Server, Library]) -> None:
    server, library = fleet
    with server.client() as client:
        told = signed(client, direct="true", metadata='{"who": "me"}', max_bytes="1000000")
        assert told["finalise"]["url"] == f"/finalise?ticket={told['ticket']}"
        early = client.post(told["finalise"]["url"])
        assert (early.status_code, early.headers["lazypix-error"]) == (404, "not_found")
        put(told["put"], b"something first")
        put(told["put"], PICTURE)
        answers = [client.post(told["finalise"]["url"], headers=ELSEWHERE) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json() == answers[1].json() == {
            "status": "ok", "content": {"ident": told["ident"], "sizes": []},
        }  # fmt: skip
        assert answers[0].headers["access-control-allow-origin"] == "*"
        assert client.get(f"/image/{told['ident']}.jpg").content == PICTURE
        put(told["put"], b"once more, much too late")
        assert client.post(told["finalise"]["url"]).status_code == 200
        assert client.get(f"/image/{told['ident']}.jpg").content == PICTURE
        assert used(client, told["ticket"]).status_code == 409
    assert library.get(told["ident"]).metadata == {"who": "me"}
    assert staged(library) == []


def test_what_was_put_is_verified_and_removed_when_it_is_refused(fleet: tuple[Server, Library]) -> None:
    server, library = fleet
    with server.client() as client:
        for body, fields, status in (
            (b"no image at all", {}, 415),
            (PICTURE[:-30], {}, 422),
            (PICTURE, {"formats": "png"}, 415),
            (PICTURE, {"max_bytes": "100"}, 413),
            (PICTURE, {"max_pixels": "100"}, 413),
        ):
            told = signed(client, direct="true", **fields)
            put(told["put"], body)
            assert client.post(told["finalise"]["url"]).status_code == status
            assert staged(library) == []
            assert client.get(f"/info/{told['ident']}").status_code == 404
        put(told["put"], b"")
        assert client.post(told["finalise"]["url"]).status_code == 400


def test_of_many_who_finalise_at_once_one_stores_it(fleet: tuple[Server, Library]) -> None:
    server, library = fleet
    ticket, threads = library.ticket(ident="at-once"), 4
    address = library.tickets.upload_address(ticket)
    assert address.url not in repr(address)
    ask("PUT", address.url, content=PICTURE).raise_for_status()
    begin = threading.Barrier(threads)

    def finalise(_: int) -> tuple[int, str]:
        with server.client() as client:
            begin.wait(WAIT_S)
            answer = client.post("/finalise", params={"ticket": ticket})
            return answer.status_code, answer.headers.get("lazypix-error", "")

    with ThreadPoolExecutor(threads) as pool:
        answers = set(pool.map(finalise, range(threads)))
    # Who comes while another stores it is told to ask again, and gets the image then.
    assert (200, "") in answers
    assert answers <= {(200, ""), (503, "busy")}
    assert library.finalise(ticket).size == len(PICTURE)


class Slow(WrappedStore):
    """A store in which all is over by the time it answers for the first time."""

    library: Library
    ticket: str
    other: Image | None = None

    def head(self, key: str) -> Blob:
        if ("head", key) not in self.calls:
            self.calls.append(("head", key))
            self.other = self.library.finalise(self.ticket)
        return super().head(key)


def test_who_finalises_while_another_gets_through_with_it_gets_the_same_image(tmp_path: Path) -> None:
    store = Slow(MemoryStore())
    with Library.open(tmp_path, ticket_keys=RING, store=store, engine=ThreadEngine(1)) as library:
        store.library, store.ticket = library, library.ticket(ident="both")
        staged_at = library.keys.staged("both", library.tickets.open(store.ticket).expires_at)
        store.put(staged_at, PICTURE)
        assert library.finalise(store.ticket) == store.other
        assert store.other is not None
        assert not list(library.store.list(library.keys.staging))


def test_a_ticket_is_not_good_for_an_image_that_another_stored(fleet: tuple[Server, Library]) -> None:
    _, library = fleet
    ticket = library.ticket(ident="mine")
    ask("PUT", library.tickets.upload_address(ticket).url, content=PICTURE).raise_for_status()
    library.finalise(ticket)
    library.delete("mine")
    with pytest.raises(IdentTaken):
        library.finalise(ticket)
    other = library.ticket(ident="another-s")
    library.add(PICTURE, ident="another-s", metadata={"other": True})
    with pytest.raises(IdentTaken):
        library.finalise(other)
    with pytest.raises(IdentTaken):
        library.ticket(ident="another-s")


def test_what_nobody_finalised_goes_when_the_ticket_has_expired(fleet: tuple[Server, Library]) -> None:
    _, library = fleet
    now = int(time.time())
    for ident, expires_at in (("gone", now - 100), ("young", now - 10), ("good", now + 100)):
        library.store.put(library.keys.staged(ident, expires_at), PICTURE)
    library.store.put("upload.staged/of-somebody-else", PICTURE)
    assert library.tickets.sweep(older_than_s=50) == 1
    left = {key.partition("-")[2] for key in staged(library)}
    assert left == {"young", "good", "somebody-else"}
    library.store.delete_prefix("upload.staged/")


def test_bytes_are_counted_while_the_store_is_read(fleet: tuple[Server, Library]) -> None:
    _, library = fleet
    ticket = library.ticket(max_bytes=len(PICTURE) - 1)
    with pytest.raises(NotFound):
        library.finalise(ticket)
    ask("PUT", library.tickets.upload_address(ticket).url, content=PICTURE).raise_for_status()
    with pytest.raises(TooLarge, match=f"limit of {len(PICTURE) - 1} bytes"):
        library.finalise(ticket)


def test_a_folder_takes_nothing_from_clients(tmp_path: Path) -> None:
    with Library.open(tmp_path, ticket_keys=RING) as library:
        ticket = library.ticket()
        with pytest.raises(BadRequest, match="takes nothing from clients"):
            library.tickets.upload_address(ticket)
        assert library.tickets.sweep(older_than_s=0) == 0
