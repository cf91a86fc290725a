"""Shared answers: what comes out is what went in, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import programs
from tests.answers.machines import ASKED, TTL_S, Clock, Machine, representation
from tests.waiting import WAIT_S, until

from lazypix.answers import Asked, SharedAnswers, decode, encode
from lazypix.cache.opening import open_cache
from lazypix.cache.process import ProcessCache
from lazypix.http import FileBody, Representation

# --- the encoding ----------------------------------------------------------------------------------------------

REPRESENTATIONS = st.builds(
    Representation,
    ident=st.text(),
    body=st.binary(max_size=2000),
    etag=st.text(),
    modified=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))])),
    headers=st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=60)), max_size=8).map(tuple),
)


@given(REPRESENTATIONS, st.text())
def test_every_field_comes_back(whole: Representation, key: str) -> None:
    read = decode(key, encode(key, whole))
    assert read == whole
    assert read is not None
    assert read.modified.utcoffset() == whole.modified.utcoffset()


def test_every_damage_is_a_miss() -> None:
    value = encode("key", representation(b"\xff\xd8 a small body"))
    assert decode("key", value) is not None
    for place in range(len(value)):
        for flipped in (0x01, 0x20, 0x80, 0xFF):
            damaged = bytearray(value)
            damaged[place] ^= flipped
            assert decode("key", bytes(damaged)) is None
        assert decode("key", value[:place]) is None
        assert decode("key", value[place + 1 :]) is None
        assert decode("key", value[:place] + b"x" + value[place:]) is None
    assert decode("key", value + b"x") is None
    assert decode("key", value + value) is None


def test_a_value_is_good_under_its_own_key_only() -> None:
    value = encode("key", representation())
    for other in ("", "ke", "key ", "Key", "\ud800"):
        assert decode(other, value) is None


@given(st.binary(max_size=200))
def test_what_others_wrote_is_a_miss(value: bytes) -> None:
    assert decode("key", value) is None
    assert decode("key", b"lpx1" + value) is None


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b"null", b"{}", b'{"ident":"a","etag":"e","modified":"soon","headers":[]}', b"\xff"]
)
def test_what_another_version_wrote_is_a_miss(header: bytes) -> None:
    from lazypix.answers import _seal

    assert decode("key", _seal("key", len(header).to_bytes(4, "big"), header, b"body")) is None
    assert decode("key", _seal("key", (2**32 - 1).to_bytes(4, "big"), header)) is None
    assert decode("key", _seal("key", header[:3])) is None


def test_nothing_of_a_value_is_ever_run() -> None:
    import pickle

    assert decode("key", pickle.dumps(representation())) is None
    assert b"pickle" not in encode("key", representation())
    assert "pickle" not in Path(str(__import__("lazypix.answers").answers.__file__)).read_text()


# --- what is shared --------------------------------------------------------------------------------------------


def test_one_machine_shares_and_the_others_find(one: Machine, two: Machine) -> None:
    assert two.finds() is None
    one.shares(b"made by one")
    assert two.finds() == b"made by one"
    assert one.finds() == b"made by one"


def test_answers_to_different_questions_are_different(one: Machine, two: Machine) -> None:
    questions = [
        Asked(path="/i/cat", query=""), Asked(path="/i/cat", query="w=1"), Asked(path="/i/catw=1", query=""),
        Asked(path="/i/cat", query="", formats=()), Asked(path="/i/cat", query="", formats=("avif", "webp")),
        Asked(path="/i/cat", query="", formats=("webp", "avif")), Asked(path="/i/cat", query="", formats=("avif,webp",)),
        Asked(path="/i/cat?", query=""), Asked(path="/i/", query="cat"), Asked(path="", query=""), Asked(path="/\ud800", query=""),
        Asked(path='/i/cat", "', query=""),
    ]  # fmt: skip
    for ident in ("cat", "dog"):
        for number, asked in enumerate(questions):
            one.shares(f"{ident} {number}".encode(), ident, asked)
    for ident in ("cat", "dog"):
        for number, asked in enumerate(questions):
            assert two.finds(ident, asked) == f"{ident} {number}".encode()


def test_files_and_large_answers_are_not_shared(shared: ProcessCache, tmp_path: Path) -> None:
    answers = SharedAnswers(shared, ttl_s=60, max_item_bytes=1000)
    ticket = answers.ticket("cat")
    assert ticket is not None
    before = shared.keys()
    body = FileBody(path=tmp_path / "x", start=0, length=3)
    whole = representation()
    answers.set(ticket, ASKED, Representation(ident="cat", body=body, etag="e", modified=whole.modified, headers=()))
    answers.set(ticket, ASKED, representation(b"x" * 1001))
    answers.set(ticket, ASKED, representation(b"x" * 999))  # with all that belongs to it, it is larger
    assert shared.keys() == before
    answers.set(ticket, ASKED, representation(b"x" * 800))
    assert answers.get(ticket, ASKED) == representation(b"x" * 800)


def test_answers_end(one: Machine, two: Machine, clock: Clock) -> None:
    one.shares(b"body")
    clock.now += TTL_S - 1
    assert two.finds() == b"body"
    clock.now += 2
    assert two.finds() is None


def test_damaged_entries_are_misses_and_mend_themselves(one: Machine, two: Machine, shared: ProcessCache) -> None:
    one.shares(b"body")
    keys = shared.keys()
    (answer,) = [key for key in keys if key.startswith("answer:")]
    shared.set(answer, (shared.get(answer) or b"")[:-1], ttl_s=60)
    assert two.finds() is None
    one.shares(b"body")
    assert two.finds() == b"body"
    for key in [key for key in keys if key.startswith("generation")]:
        shared.set(key, b"nonsense", ttl_s=600_000)
        assert two.finds() is None
        until(lambda: two.answers.ticket("cat") is not None)
        one.shares(b"new")
        assert two.finds() == b"new"


def test_no_generation_is_taken_for_another_images(one: Machine, shared: ProcessCache) -> None:
    one.shares(b"cat", "cat")
    one.shares(b"dog", "dog")
    shared.set("generation:cat", shared.get("generation:dog") or b"", ttl_s=60)
    assert one.finds("cat") is None


# --- real servers ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("servers")
    with programs.redis(folder) as redis, programs.memcached(folder) as one, programs.memcached(folder) as two:
        yield {"redis": f"redis://{redis.address}", "memcached": f"memcached://{one.address},{two.address}"}


@pytest.mark.parametrize("kind", ["redis", "memcached"])
def test_machines_share_through_real_servers(servers: dict[str, str], kind: str) -> None:
    url = servers[kind] + "?prefix=answers:"
    opened = [SharedAnswers(open_cache(url, timeout_s=WAIT_S), ttl_s=60, quiet_s=0.2) for _ in range(2)]
    with closing(opened[0]) as one, closing(opened[1]) as two:
        assert "127.0.0.1" in repr(one)
        ticket = one.ticket("cat")
        assert ticket is not None
        whole = representation(bytes(range(256)) * 3900)
        one.set(ticket, ASKED, whole)
        assert two.ticket("cat") == ticket
        assert two.get(ticket, ASKED) == whole
        two.forget("cat")
        one.set(ticket, ASKED, whole)
        until(lambda: one.ticket("cat") is not None)
        new = two.ticket("cat")
        assert new is not None
        assert new.generation != ticket.generation
        assert two.get(new, ASKED) is None
        one.forget_all()
        until(lambda: two.ticket("cat") is not None)
        newest = one.ticket("cat")
        assert newest is not None
        assert newest.generation not in (new.generation, ticket.generation)
