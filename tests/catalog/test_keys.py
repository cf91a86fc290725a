"""API keys in the catalog: kept as hashes, revoked for ever; and their quotas, which hold whatever happens at once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy import BigInteger, ColumnElement, Engine, event, literal
from tests.held import counted, told

from lazypix.catalog import Catalog, Image
from lazypix.catalog.key_rows import KeyRows, Quotas
from lazypix.credentials import ApiKey
from lazypix.errors import BadRequest, IdentTaken, NotFound, QuotaExceeded, TooManyRequests, Unauthorized
from lazypix.plan import Probe

PROBE = Probe(format="png", width=12, height=8, frames=1, orientation=1, alpha=False)


def image(ident: str, owner: str | None, size: int = 100) -> Image:
    return Image(ident=ident, sha256="ab" * 32, size=size, probe=PROBE, created=datetime.now(UTC), owner=owner)


def made(catalog: Catalog, **quotas: int) -> str:
    """Make a key; return its id."""
    return catalog.keys.make("shop", ["upload"], Quotas(**quotas))[0].id


def stored(catalog: Catalog, ident: str, owner: str, size: int = 100) -> None:
    catalog.publish(ident, catalog.claim(image(ident, owner, size)))


# --- keys ------------------------------------------------------------------------------------------------------


def test_a_key_is_kept_as_a_hash(catalog: Catalog, url: str) -> None:
    record, key = catalog.keys.make("the shop", ["delete", "upload"], Quotas(max_images=3, max_bytes=5, per_minute=7))
    assert (record.id, record.name, record.scopes) == (key.id, "the shop", ("upload", "delete"))
    assert record.quotas == Quotas(max_images=3, max_bytes=5, per_minute=7)
    assert (record.images, record.bytes, record.revoked) == (0, 0, None)
    assert key.matches(record.hash)
    assert catalog.keys.find(key.id) == record
    assert key.hash not in repr(record)
    assert "hash" not in record.facts()
    kept = written(url)
    assert key.hash in kept
    assert key.secret not in kept


def written(url: str) -> str:
    """Everything that is kept of keys."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            rows = connection.execute("SELECT * FROM api_keys").fetchall()
        connection.close()
        return repr(rows)
    with psycopg.connect(url) as connected:
        return repr(connected.execute("SELECT * FROM api_keys").fetchall())


def test_keys_are_listed_oldest_first_with_what_they_use(catalog: Catalog) -> None:
    assert not catalog.keys.any()
    ids = [made(catalog), made(catalog, max_images=2)]
    stored(catalog, "a", ids[1], 30)
    assert [record.id for record in catalog.keys.list()] == ids
    assert told(catalog) == {ids[0]: (0, 0), ids[1]: (1, 30)}
    facts = catalog.keys.list()[1].facts()
    assert {name: facts[name] for name in ("images", "max_images", "bytes", "max_bytes")} == {
        "images": 1, "max_images": 2, "bytes": 30, "max_bytes": None,
    }  # fmt: skip


def test_a_key_is_revoked_for_ever(catalog: Catalog) -> None:
    key = made(catalog)
    revoked = catalog.keys.revoke(key)
    assert revoked.revoked is not None
    assert catalog.keys.revoke(key) == revoked
    assert catalog.keys.any()
    with pytest.raises(Unauthorized, match=f"{key} was revoked"):
        catalog.claim(image("a", key))
    with pytest.raises(NotFound, match="no API key 'nobody'"):
        catalog.keys.revoke("nobody")
    assert catalog.keys.find("nobody") is None


def test_a_key_that_makes_no_sense_is_refused(catalog: Catalog) -> None:
    for name in ("", " ", "a\nb", "n" * 201):
        with pytest.raises(BadRequest, match=r"name=.* accepted: 1 to 200"):
            catalog.keys.make(name, ["upload"])
    for scopes in ([], ["write"]):
        with pytest.raises(BadRequest, match="accepted: upload, delete, admin"):
            catalog.keys.make("shop", scopes)
    for quotas in ({"max_images": -1}, {"max_bytes": 2**63}, {"per_minute": 2**31}):
        with pytest.raises(BadRequest, match="is not accepted; accepted: 0"):
            Quotas(**quotas)
    assert not catalog.keys.any()


def test_an_id_that_is_taken_is_not_given_twice(catalog: Catalog) -> None:
    first = catalog.keys.make("one", ["upload"])[1]
    second = ApiKey.new()
    with patch.object(ApiKey, "new", side_effect=[first, second]):
        assert catalog.keys.make("two", ["upload"])[0].id == second.id
    assert first.matches(catalog.keys.get(first.id).hash)


# --- images and bytes ------------------------------------------------------------------------------------------


def test_an_image_counts_from_its_claim_until_its_blobs_are_gone(catalog: Catalog) -> None:
    key = made(catalog)
    claim = catalog.claim(image("a", key))
    assert told(catalog) == {key: (1, 100)}
    catalog.publish("a", claim)
    catalog.begin_delete("a", trash_s=60)
    catalog.undelete("a")
    catalog.begin_delete("a", trash_s=60)
    catalog.empty_trash("a", before_its_time=True)
    assert told(catalog) == counted(catalog) == {key: (1, 100)}
    for _ in range(2):  # a sweeper may come second
        catalog.end_delete("a")
        assert told(catalog) == counted(catalog) == {key: (0, 0)}
    catalog.forget_deleted("a")
    assert told(catalog) == {key: (0, 0)}
    assert catalog.entries(["a"])["a"][0].owner == key


def test_an_upload_that_fails_counts_no_more(catalog: Catalog) -> None:
    key = made(catalog, max_images=1)
    claim = catalog.claim(image("a", key))
    catalog.withdraw("a", claim)
    assert told(catalog) == counted(catalog) == {key: (1, 100)}
    later = catalog.take_over("a", older_than_s=0)
    catalog.abandon("a", claim)  # it is another's by now
    assert told(catalog) == {key: (1, 100)}
    for _ in range(2):
        catalog.abandon("a", later)
        assert told(catalog) == counted(catalog) == {key: (0, 0)}
    stored(catalog, "a", key)


def test_a_claim_that_is_refused_counts_nothing(catalog: Catalog) -> None:
    key = made(catalog)
    stored(catalog, "a", key)
    with pytest.raises(IdentTaken):
        catalog.claim(image("a", key))
    with pytest.raises(BadRequest, match="no API key nobody"):
        catalog.claim(image("b", "nobody"))
    assert told(catalog) == counted(catalog) == {key: (1, 100)}
    assert catalog.states(["b"]) == {}


def test_what_is_over_a_quota_is_refused_and_says_so(catalog: Catalog) -> None:
    few, small = made(catalog, max_images=1), made(catalog, max_bytes=250)
    stored(catalog, "a", few)
    with pytest.raises(QuotaExceeded, match="may have 1 images, and has 1"):
        catalog.claim(image("b", few))
    stored(catalog, "c", small)
    stored(catalog, "d", small, 150)  # exactly
    with pytest.raises(QuotaExceeded, match="250 bytes together, and has 250; this one has 1"):
        catalog.claim(image("e", small, 1))
    with pytest.raises(QuotaExceeded):
        catalog.keys.check_room(small, 1)
    assert catalog.states(["b", "e"]) == {}
    catalog.begin_delete("a")
    catalog.end_delete("a")
    stored(catalog, "f", few)


def test_uploads_that_are_begun_have_room_together(catalog: Catalog) -> None:
    owner, other = made(catalog, max_bytes=250), made(catalog, max_bytes=250)
    first = catalog.uploads.create(100, fields={}, owner=owner, keep_s=60)
    stored(catalog, "one", owner, 100)
    with pytest.raises(QuotaExceeded, match="has 100, and 100 of uploads that are under way; this one has 51"):
        catalog.uploads.create(51, fields={}, owner=owner, keep_s=60)
    catalog.uploads.create(250, fields={}, owner=other, keep_s=60)
    catalog.uploads.create(1000, fields={}, owner=None, keep_s=60)
    assert catalog.uploads.end(first.id)
    catalog.uploads.create(150, fields={}, owner=owner, keep_s=60)
    with pytest.raises(QuotaExceeded):
        catalog.uploads.create(1, fields={}, owner=owner, keep_s=60)


def test_of_many_uploads_that_are_begun_at_once_those_begin_that_fit(catalog: Catalog) -> None:
    owner, start = made(catalog, max_bytes=350), threading.Barrier(8)

    def begin(_: int) -> bool:
        start.wait(30)
        try:
            catalog.uploads.create(100, fields={}, owner=owner, keep_s=60)
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, range(8))) == 3


def test_copied_images_count_over_any_quota(catalog: Catalog) -> None:
    key = made(catalog, max_images=1)
    assert catalog.adopt(image("a", key))
    assert catalog.adopt(image("b", key), state="trashed")
    assert catalog.adopt(image("c", key), state="gone")
    assert catalog.adopt(image("d", "of another catalog"))
    assert not catalog.adopt(image("a", key))
    assert told(catalog) == counted(catalog) == {key: (2, 200)}


def test_room_that_is_given_back_while_it_is_refused_is_had(catalog: Catalog, url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite has one who writes at a time")
    key = made(catalog, max_images=1)
    stored(catalog, "old", key)

    def give_back(*arguments: object) -> None:
        cursor, statement = arguments[1:3]
        if str(statement).startswith("UPDATE api_keys") and cursor.rowcount == 0:  # type: ignore[attr-defined]
            with closing(Catalog.open(url)) as another:
                another.begin_delete("old")
                another.end_delete("old")

    event.listen(Engine, "after_cursor_execute", give_back)
    try:
        stored(catalog, "new", key)
    finally:
        event.remove(Engine, "after_cursor_execute", give_back)
    assert catalog.keys.get(key).images == 1


def test_many_at_once_never_get_over_a_quota_and_none_is_lost(catalog: Catalog) -> None:
    key, threads, each, most = made(catalog, max_images=7, max_bytes=650), 8, 4, 6
    begin = threading.Barrier(threads)
    most_seen = []

    def work(number: int) -> int:
        begin.wait()
        done = 0
        for turn in range(each):
            ident = f"{number}-{turn}"
            try:
                claim = catalog.claim(image(ident, key))
            except QuotaExceeded:
                continue
            record = catalog.keys.get(key)
            most_seen.append((record.images, record.bytes))
            if turn % 2:  # it fails
                catalog.withdraw(ident, claim)
                catalog.abandon(ident, claim)
                continue
            catalog.publish(ident, claim)
            done += 1
            if turn == 2:
                catalog.begin_delete(ident)
                catalog.end_delete(ident)
                done -= 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        left = sum(pool.map(work, range(threads)))
    assert told(catalog) == counted(catalog) == {key: (left, 100 * left)}
    assert 1 <= max(most_seen)[0] <= most
    for number in range(most - left):
        stored(catalog, f"more-{number}", key)
    with pytest.raises(QuotaExceeded):
        stored(catalog, "too-many", key)


def test_who_claims_one_ident_at_once_counts_once(catalog: Catalog) -> None:
    key, threads = made(catalog), 6
    begin = threading.Barrier(threads)

    def work(_: int) -> bool:
        begin.wait()
        try:
            claim = catalog.claim(image("same", key))
        except IdentTaken:
            return False
        catalog.withdraw("same", claim)
        catalog.abandon("same", claim)
        return True

    with ThreadPoolExecutor(threads) as pool:
        assert any(pool.map(work, range(threads)))
    assert told(catalog) == counted(catalog) == {key: (0, 0)}


def test_an_ident_that_is_given_back_while_it_is_claimed_is_free(catalog: Catalog) -> None:
    first = catalog.claim(image("same", None))
    states = catalog.states

    def given_back(idents: list[str]) -> object:
        catalog.withdraw("same", first)
        catalog.abandon("same", first)
        return states(idents)

    with patch.object(catalog, "states", side_effect=given_back) as looked:
        catalog.publish("same", catalog.claim(image("same", None)))
    assert looked.call_count == 1
    assert catalog.get("same").ident == "same"


# --- requests --------------------------------------------------------------------------------------------------


def at(seconds: float) -> Callable[[KeyRows], ColumnElement[int]]:
    return lambda _: literal(round(seconds * 1e6), BigInteger)


def test_requests_are_counted_by_the_minute(catalog: Catalog) -> None:
    key, minute = made(catalog, per_minute=2), 60 * 30_000_000
    with patch.object(KeyRows, "_now", at(minute + 18.5)):
        catalog.keys.count_request(key)
        catalog.keys.count_request(key)
        with pytest.raises(TooManyRequests, match="2 requests a minute, and has; again in 42 seconds") as refused:
            catalog.keys.count_request(key)
        assert refused.value.retry_after_s == 42
    with patch.object(KeyRows, "_now", at(minute + 60)):
        catalog.keys.count_request(key)
    with patch.object(KeyRows, "_now", at(minute + 59.9)):  # the row was waited for over the end of the minute
        catalog.keys.count_request(key)
        with pytest.raises(TooManyRequests):
            catalog.keys.count_request(key)
    with patch.object(KeyRows, "_now", at(minute - 3600)):  # the clock was set back
        catalog.keys.count_request(key)


def test_many_requests_at_once_are_not_more_than_the_quota(catalog: Catalog) -> None:
    key, threads = made(catalog, per_minute=5), 8
    begin = threading.Barrier(threads)

    def ask(_: int) -> int:
        begin.wait()
        done = 0
        for _ in range(3):
            try:
                catalog.keys.count_request(key)
                done += 1
            except TooManyRequests:
                pass
        return done

    with patch.object(KeyRows, "_now", at(60 * 30_000_000)), ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(ask, range(threads))) == 5


def test_the_time_is_the_database_s(catalog: Catalog) -> None:
    key = made(catalog, per_minute=1)

    def ask_thrice() -> None:  # a minute may end once meanwhile
        for _ in range(3):
            catalog.keys.count_request(key)

    with pytest.raises(TooManyRequests) as refused:
        ask_thrice()
    assert refused.value.retry_after_s is not None
    assert 1 <= refused.value.retry_after_s <= 60
