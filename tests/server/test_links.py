"""Signed links and presets over HTTP, with a real server; and behind nginx."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.pictures import encoded, jpg, quadrants
from tests.server.running import Server, error_of, get_raw, kill, running
from tests.server.test_nginx_configuration import KEY, fronted
from tests.waiting import until

from lazypix.addresses import Addresses
from lazypix.gate import Gate
from lazypix.presets import Presets
from lazypix.signing.links import KeyRing

NEW, OLD = "new:a-new-secret-of-many-characters", "old:an-old-secret-of-many-characters"
PRESETS = {"thumb": "60x60,fit=cover"}
SETTINGS = {"url_keys": f"{NEW},{OLD}", "presets": '{"thumb": "60x60,fit=cover"}', "renderers": "1"}
PICTURE, PICTURE_PNG = jpg(quadrants(120, 80)), encoded(quadrants(120, 80), "png")


def links(*keys: str, at: float | None = None) -> Addresses:
    """What an application has that writes links: keys and presets, but no library; perhaps some time ago."""
    clock = time.time if at is None else lambda: at
    gate = Gate(mode="signed", ring=KeyRing.of(keys or (NEW, OLD)), presets=Presets.read(PRESETS), clock=clock)
    return Addresses(gate=gate, expiry_step_s=1)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("signed") / "data", urls="signed", **SETTINGS) as server:
        server.upload(PICTURE, ident="pic")
        yield server


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("presets") / "data", urls="presets", **SETTINGS) as server:
        server.upload(PICTURE, ident="pic")
        yield server


def told(server: Server, target: str) -> tuple[int, str | None]:
    answer = get_raw(server, target)
    if answer.status >= 400:
        assert error_of(answer.body)
    return answer.status, answer.headers.get("lazypix-error")


BAD, EXPIRED = (403, "bad_signature"), (403, "link_expired")


def test_only_signed_addresses_are_answered(signed: Server) -> None:
    link = links().url("pic", "60x", format="jpg", expires_s=600)
    for _ in ("made", "from memory"):
        assert told(signed, link) == (200, None)
    for target in (
        "/image/60x/pic.jpg", "/image/pic.jpg", "/image/@thumb/pic.jpg", "/image/pic.jpg?width=60&height=0",
        link.replace("60x", "61x"), link.replace("/pic.", "/pic2."), link.replace("?s=new", "?s=old"), link[:-1],
        link + "&", link + "&width=9", link.replace(".x.", ".p."), link.replace(".x.", ".900x900."),
        link.replace("60x", "%360x"),
    ):  # fmt: skip
        assert told(signed, target) == BAD, target
    for target in (link.replace("?", "?width=9&"), link.replace("/image/", "/image//")):  # not even an address
        assert told(signed, target)[0] in (400, 404), target


def test_an_old_key_verifies_and_a_foreign_one_does_not(signed: Server) -> None:
    assert told(signed, links(OLD).url("pic", "60x", format="jpg")) == (200, None)
    assert told(signed, links(OLD.replace("old:an", "old:any")).url("pic", "60x", format="jpg")) == BAD
    assert told(signed, links("other:a-secret-of-many-characters").url("pic", "60x", format="jpg")) == BAD


def test_the_log_holds_no_link_and_no_ticket(tmp_path: Path) -> None:
    ticket_key = "t:a-ticket-secret-of-many-characters"
    with running(tmp_path / "data", urls="signed", ticket_keys=ticket_key, access_log="true", **SETTINGS) as server:
        with server.client() as client:
            ticket = client.post("/tickets", data={"ident": "pic"}).json()["content"]["ticket"]
            stored = client.post(f"/upload?ticket={ticket}", files={"image": ("a.jpg", PICTURE)})
            assert stored.status_code == 201
        link = links().url("pic", "60x", format="jpg")
        assert told(server, link) == (200, None)
        until(lambda: link.rpartition(".")[0] in server.log.read_text())
        written = server.log.read_text()
    assert ticket.rpartition(".")[0] in written  # whose it was is told
    assert link.rpartition(".")[2] not in written
    assert ticket.rpartition(".")[2] not in written


def test_facts_are_told_to_who_has_a_key_only(tmp_path: Path) -> None:
    key = "a-key-of-an-application"
    with running(tmp_path / "data", urls="signed", api_keys=key, **SETTINGS) as server, server.client() as client:
        allowed = {"Authorization": f"Bearer {key}"}
        client.post("/upload", files={"image": ("private.jpg", PICTURE)}, data={"ident": "pic"}, headers=allowed)
        assert client.get("/info/pic", headers=allowed).json()["content"]["filename"] == "private.jpg"
        for ident in ("pic", "nobody"):  # nor is it told which images there are
            for refused in (
                client.get(f"/info/{ident}"),
                client.get(f"/info/{ident}", headers={"Authorization": "x"}),
            ):
                assert (refused.status_code, refused.headers["lazypix-error"]) == (401, "unauthorized")
            assert client.head(f"/info/{ident}").status_code == 401


def test_an_expired_link_is_refused(signed: Server) -> None:
    assert told(signed, links(at=time.time() - 100).url("pic", "60x", format="jpg", expires_s=10)) == EXPIRED


def test_a_link_that_was_hot_is_refused_as_soon_as_it_expired(signed: Server) -> None:
    assert told(signed, links().url("pic", "50x", format="jpg")) == (200, None)  # made: only the look-up takes time
    timings: list[str] = []
    for expires_s in (2, 5, 15):  # a slow server may have no time to answer from memory before the end
        timings += told_until_it_expired(signed, links().url("pic", "50x", format="jpg", expires_s=expires_s))
        if "cache;desc=hit" in timings:
            break
    assert "cache;desc=hit" in timings


def told_until_it_expired(signed: Server, link: str) -> list[str]:
    """Ask by a link again and again, so that the answer is in memory all the time; return how the work went."""
    ends_at = int(link.partition("?s=")[2].split(".")[1], 36)
    timings = []
    while True:
        before = time.time()
        answer = get_raw(signed, link)
        after = time.time()
        if answer.status != 200:
            break
        assert before < ends_at
        timings.append(answer.headers["server-timing"])
    assert after >= ends_at
    assert (answer.status, answer.headers["lazypix-error"]) == EXPIRED
    return timings


def test_conditions_ranges_and_head_are_answered_by_signed_links(signed: Server) -> None:
    link = links().url("pic", "60x", format="webp", expires_s=600)
    whole = signed.get(link)
    tag = whole.headers["etag"]
    assert 500 < int(whole.headers["cache-control"].removeprefix("public, max-age=")) < 600
    for _ in ("looked up", "from memory"):
        assert signed.get(link, if_none_match=tag).status_code == 304
        part = signed.get(link, range="bytes=2-9")
        assert (part.status_code, part.content) == (206, whole.content[2:10])
        head = get_raw(signed, link, method="HEAD")
        assert (head.status, head.body, head.headers["etag"]) == (200, b"", tag)
    for headers in ({"if_none_match": tag}, {"range": "bytes=2-9"}):
        refused = signed.get(link.replace("?s=", "?s=x"), **headers)
        assert (refused.status_code, refused.headers["lazypix-error"]) == BAD
    assert get_raw(signed, link[:-1], method="HEAD").status == 403


def test_a_box_link_is_good_for_other_sizes_of_the_image(signed: Server) -> None:
    signature = links().url("pic", "80x80", scope="100x90", expires_s=600).partition("?")[2]
    assert signed.picture(f"/image/100x90,fit=cover/pic.jpg?{signature}").size == (100, 90)
    assert signed.picture(f"/image/pic.jpg?width=50&height=45&{signature}").size == (50, 45)
    assert signed.picture(f"/image/50/45/pic.jpg?{signature}").size == (50, 45)
    for target in ("/image/101x90/pic.jpg", "/image/pic.jpg", "/image/100x/pic.jpg", "/image/80x80/other.jpg"):
        assert told(signed, f"{target}?{signature}") == BAD
    assert told(signed, f"/image/pic.jpg?width=101&height=90&{signature}") == BAD


def test_presets_are_for_everybody(named: Server) -> None:
    for target in ("/image/@thumb/pic.webp", "/image/60x60,fit=cover/pic.jpg", "/image/@thumb/pic"):
        assert named.picture(target).size == (60, 60)
    for target in ("/image/61x60,fit=cover/pic.jpg", "/image/pic.jpg", "/image/60/60/pic.jpg"):
        assert told(named, target) == BAD
    unknown = get_raw(named, "/image/@big/pic.jpg")
    assert unknown.status == 400
    assert "'@big'; accepted: @thumb" in error_of(unknown.body)
    assert named.picture(links().url("pic", "61x60,fit=cover", format="jpg")).size == (61, 60)
    assert told(named, links().url("pic", format="jpg")) == (200, None)


def test_secrets_are_not_in_the_log(signed: Server, named: Server) -> None:
    for server in (signed, named):
        assert "secret" not in server.log.read_text()


def test_behind_nginx_a_link_ends_with_its_second_and_a_lasting_one_is_cached(tmp_path: Path) -> None:
    with fronted(tmp_path, urls="signed", api_keys=KEY, **SETTINGS) as front:
        assert front.upload(PICTURE_PNG, "pic").status_code == 201
        lasting = links().url("pic", "60x", format="jpg")
        until(lambda: front.get(lasting).headers["server-timing"] == "nginx;desc=HIT")
        front.stored(lasting, "60x.jpg")
        for unsigned in ("/image/60x/pic.jpg", lasting[:-1], lasting.replace("60x", "61x")):
            assert front.get(unsigned).status_code == 403, "neither the file nor what is cached is sent"
        link = links().url("pic", "50x", format="jpg", expires_s=2)
        ends_at = int(link.partition("?s=")[2].split(".")[1], 36)
        while (answer := front.get(link)).status_code == 200:
            assert answer.headers["server-timing"] == "nginx;desc=MISS"
        assert time.time() >= ends_at
        assert (answer.status_code, answer.headers["lazypix-error"]) == EXPIRED
        kill(front.server)
        assert front.get(lasting).status_code == 200
        assert front.get(link).status_code == 502
