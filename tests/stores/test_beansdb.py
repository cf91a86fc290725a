"""The Beansdb store alone: its servers go away, come back with less, hang, and disagree."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from tests.fakes.beansdb import COMPRESSED, FakeBeansdb, Record, fnv1a, gen_hash, good_key
from tests.ports import free_ports
from tests.programs import listens, running

from lazypix.errors import BlobExists, BlobMissing, SettingsError, StoreFailed, TooLarge
from lazypix.stores import RepairReport, beansdb_protocol
from lazypix.stores.beansdb import BeansdbStore
from lazypix.stores.beansdb_protocol import MAX_VALUE_BYTES, bucket_of, escape, unescape, value_hash

KEY, NAME = "a/b.jpg", b"a/b.jpg"


@pytest.fixture
def servers() -> Iterator[list[FakeBeansdb]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeBeansdb(split=8)) for _ in range(3)]


@pytest.fixture
def always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is left alone after it failed."""
    monkeypatch.setattr(beansdb_protocol, "REST_S", 0.0)


@pytest.fixture
def long_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that failed is left alone until the end of the test, however slow the machine."""
    monkeypatch.setattr(beansdb_protocol, "REST_S", 600.0)


@pytest.fixture
def store(servers: list[FakeBeansdb]) -> Iterator[BeansdbStore]:
    with closing(BeansdbStore([server.address for server in servers], timeout_s=20)) as opened:
        yield opened


def _store(
    servers: list[FakeBeansdb], *, copies: int | None = None, writes: int | None = None, reads: int | None = None
) -> BeansdbStore:
    addresses = [server.address for server in servers]
    return BeansdbStore(addresses, copies=copies, writes=writes, reads=reads, timeout_s=20)


def _versions(servers: list[FakeBeansdb], name: bytes = NAME) -> list[int]:
    return [server.records[name].version if name in server.records else 0 for server in servers]


def _values(servers: list[FakeBeansdb], name: bytes = NAME) -> list[bytes | None]:
    return [server.records[name].value if name in server.records else None for server in servers]


def _order(servers: list[FakeBeansdb], name: bytes = NAME) -> list[FakeBeansdb]:
    """Return the servers in the order in which they are asked for a name."""
    start = bucket_of(name) % len(servers)
    return servers[start:] + servers[:start]


def _changed(fake: FakeBeansdb, verb: str, to: object) -> None:
    """Make a fake server answer a verb by `to`."""
    setattr(fake, verb, to)


# --- names, hashes, settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a/200x100,fit=cover:x~", b"a/200x100,fit=cover:x~"),
        ("@a@/?b?", b"%40a@/?b?"),
        ("?a", b"%3Fa"),
        ("100%/a b", b"100%25/a%20b"),
        ("é", b"%C3%A9"),
        ("a\x7f", b"a%7F"),
    ],
)
def test_names_are_what_beansdb_allows_and_lead_back(key: str, name: bytes) -> None:
    assert escape(key) == name
    assert good_key(name)
    assert unescape(name) == key


@pytest.mark.parametrize("name", [b"100%", b"%41", b"%c3%a9", b"%FF", b"a b", b"\xe9"])
def test_names_that_others_made_are_no_keys(name: bytes) -> None:
    assert unescape(name) is None


def test_hashes_are_the_servers() -> None:
    data = bytes(i * 7 % 256 for i in range(4000))
    for size in (0, 1, 513, 1024, 1025, 4000):
        assert value_hash(data[:size]) == gen_hash(data[:size])
        assert beansdb_protocol.fnv1a(data[:size]) == fnv1a(data[:size])


@pytest.mark.parametrize(
    ("addresses", "more", "faults"),
    [
        ([], {}, ["no servers"]),
        (["one:7900", "two"], {}, ["server 2 is not host:port"]),
        (["one:70000", "secret@two:1"], {}, ["server 1", "server 2"]),
        (["one:1", "one:1"], {}, ["named twice"]),
        (["one:1", "two:1"], {"copies": 3}, ["copies is 3; accepted: 1 to the number of servers, 2"]),
        (["one:1", "two:1"], {"copies": 1, "writes": 2, "reads": 0}, ["writes is 2", "reads is 0"]),
        (["one:1"], {"timeout_s": 0}, ["timeout_s"]),
    ],
)
def test_wrong_settings_are_all_told_at_once(addresses: list[str], more: dict[str, int], faults: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        BeansdbStore(addresses, **more)  # type: ignore[arg-type]
    assert all(fault in str(caught.value) for fault in faults)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("prefix", "fault"), [("a//b", "malformed"), (".a", "malformed"), ("x" * 200, "49 bytes")])
def test_a_prefix_that_cannot_be(prefix: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        BeansdbStore(["one:1"], prefix=prefix)


def test_without_pymemcache_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymemcache", None)
    with pytest.raises(SettingsError, match=r"pip install 'lazypix\[beansdb\]'"):
        BeansdbStore(["one:1"])


# --- writing ---------------------------------------------------------------------------------------------------


def test_a_blob_is_put_on_all_servers_as_it_is(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    store.create(KEY, b"bytes")
    assert _values(servers) == [b"bytes"] * 3
    store.put(KEY, b"other")
    assert _values(servers) == [b"other"] * 3
    assert _versions(servers) == [2, 2, 2]


def test_the_prefix_stands_before_keys_and_hides_others(servers: list[FakeBeansdb]) -> None:
    with closing(BeansdbStore([server.address for server in servers], prefix="/our own/", timeout_s=20)) as store:
        store.put("x", b"x")
        servers[0].set(b"x", b"another's")
        servers[0].set(b"our%20own/%41", b"not a name of ours")
        servers[0].set(b"our%20own/.hidden", b"no key")
        assert sorted(servers[1].records) == [b"our%20own/x"]
        assert [blob.key for blob in store.list()] == ["x"]
        assert store.capabilities.longest_key == 249 - len(b"our%20own/")
        assert store.delete_prefix("our own/") == 0


def test_never_a_time_to_live_and_never_the_servers_flag(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    order = _order(servers)
    order[0].set(NAME, b"x", 3, 0x10)  # as another client marks what it compressed
    assert store.get(KEY) == b"x"
    store.put("b", b"x")
    store.put("b", b"y")
    store.delete("b")
    sets = [line.split() for server in servers for line in server.received if line.startswith(b"set ")]
    assert sorted({(line[1], int(line[2]), int(line[3])) for line in sets}) == [
        (NAME, 0x10, 3), (b"b", 0, -3), (b"b", 0, 1), (b"b", 0, 2),
    ]  # fmt: skip
    assert not any(int(line[2]) & COMPRESSED for line in sets)
    assert {line.split()[0] for server in servers for line in server.received} == {b"get", b"set"}


@pytest.mark.parametrize(
    ("dead", "writes", "fine"), [(1, 2, True), (2, 2, False), (2, 1, True), (1, 3, False), (3, 1, False)]
)
def test_a_put_needs_w_servers(servers: list[FakeBeansdb], dead: int, writes: int, fine: bool) -> None:
    with closing(_store(servers, writes=writes)) as store:
        for server in servers[:dead]:
            server.kill()
        if fine:
            store.put(KEY, b"x")
            assert store.get(KEY) == b"x"
            store.check()
            return
        for verb in (store.put, store.create):
            with pytest.raises(StoreFailed, match=rf"{3 - dead} of 3 .* {writes} are needed"):
                verb(KEY, b"x")
        with pytest.raises(StoreFailed, match="are needed"):
            store.delete(KEY)
        with pytest.raises(StoreFailed, match="are needed"):
            store.check()
        assert _values(servers) == [None] * 3  # it was known before anything was written


def test_the_servers_flag_is_not_passed_on(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    order = _order(servers)
    order[0].set(NAME, b"x", 3)
    get = order[0].get

    def flagged(key: bytes) -> tuple[bytes, int] | None:
        found = get(key)
        return (found[0], found[1] | COMPRESSED) if found else None

    _changed(order[0], "get", flagged)
    assert store.get(KEY) == b"x"
    assert [server.records[NAME].flag for server in servers] == [0, 0, 0]


def test_a_server_that_dies_between_asking_and_writing(servers: list[FakeBeansdb], store: BeansdbStore) -> None:
    order = _order(servers)

    def die(*_: object) -> bool:
        raise ConnectionError

    _changed(order[2], "set", die)
    store.put(KEY, b"x")
    assert _values(order) == [b"x", b"x", None]


def test_a_failed_put_says_so_and_a_later_one_wins(servers: list[FakeBeansdb], always_asked: None) -> None:
    order = _order(servers)
    with closing(_store(servers, writes=2)) as store:
        store.put(KEY, b"old")
        for refusing in order[1:]:
            _changed(refusing, "set", lambda *_: False)
        with pytest.raises(StoreFailed, match=r"1 of 3 .* 2 are needed"):
            store.put(KEY, b"new")
        for refusing in order[1:]:
            vars(refusing).pop("set")
        store.put(KEY, b"newest")
        assert _values(servers) == [b"newest"] * 3


@pytest.mark.parametrize("copies", [1, 2])
def test_fewer_copies_than_servers(servers: list[FakeBeansdb], copies: int) -> None:
    with closing(_store(servers, copies=copies)) as store:
        keys = [f"{number}/x" for number in range(40)]
        for key in keys:
            store.put(key, key.encode())
        for key in keys:
            holders = [server for server in servers if key.encode() in server.records]
            assert holders == [s for s in servers if s in _order(servers, key.encode())[:copies]]
            assert store.get(key) == key.encode()
        assert all(server.records for server in servers)
        assert [blob.key for blob in store.list()] == sorted(keys)
        store.check()
        servers[0].kill()
        with pytest.raises(StoreFailed):  # some buckets have too few servers now
            store.check()


def test_a_put_goes_above_the_highest_version_there_is(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    servers[1].set(NAME, b"old", 41)
    servers[2].set(NAME, b"older", 7)
    store.put(KEY, b"new")
    assert _versions(servers) == [42] * 3


def test_too_large_values_and_too_long_keys_are_refused(
    store: BeansdbStore, servers: list[FakeBeansdb], tmp_path: Path
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MAX_VALUE_BYTES + 1)
    for verb in (store.put, store.create):
        with pytest.raises(TooLarge, match=f"{MAX_VALUE_BYTES}"):
            verb(KEY, large)
        with pytest.raises(StoreFailed, match="249"):
            verb("x" * 250, b"x")
        with pytest.raises(StoreFailed, match="249"):
            verb("é" * 60 + "/" + "é" * 60, b"x")
        with pytest.raises(StoreFailed, match="stored under"):
            verb(KEY, tmp_path / "missing")
    for ask in (store.get, store.head, lambda key: list(store.read(key))):
        with pytest.raises(BlobMissing):
            ask("x" * 250)
    assert store.delete("x" * 250) is False
    assert not any(server.received for server in servers)
    store.put("x" * 249, b"x")
    assert (store.get("x" * 249), store.head("x" * 249).size) == (b"x", 1)


def test_the_largest_value(servers: list[FakeBeansdb], tmp_path: Path) -> None:
    with closing(_store(servers[:1])) as store:
        large = tmp_path / "large"
        with large.open("wb") as file:
            file.truncate(MAX_VALUE_BYTES)
        store.put(KEY, large)
        assert store.head(KEY).size == MAX_VALUE_BYTES


def test_a_prefix_is_looked_for_by_the_servers(servers: list[FakeBeansdb]) -> None:
    servers[1].filtered_split = 2
    with closing(_store(servers, reads=3)) as store:
        deep = "é" * 35 + "/" + "é" * 5 + "abcde/"  # escaped, too long to be asked for whole
        keys = [f"{folder}{number}" for folder in ("a/", "a/b/", "ab/", "@?/", deep) for number in range(30)]
        for key in keys:
            store.put(key, b"x")
        for prefix in ("a/", "@?/", deep):
            for server in servers:
                server.received.clear()
            assert [blob.key for blob in store.list(prefix)] == sorted(key for key in keys if key.startswith(prefix))
            trees = [[line for line in server.received if line.startswith(b"get @")] for server in servers]
            assert [len(asked) for asked in trees[::2]] == [16, 16]
            assert len(trees[1]) > 16
        assert store.delete_prefix(deep) == 30
        assert [blob.key for blob in store.list()] == sorted(key for key in keys if not key.startswith(deep))


# --- reading and healing ---------------------------------------------------------------------------------------


def test_reading_gives_a_server_what_it_lacks(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    for lacking in servers:
        store.put(KEY, b"x")
        version = _versions(servers)[0]
        del lacking.records[NAME]
        assert store.get(KEY) == b"x"
        assert _versions(servers) == [version] * 3


def test_the_newest_version_is_read_and_given_to_those_that_have_an_older_one(
    store: BeansdbStore, servers: list[FakeBeansdb]
) -> None:
    for server, version in zip(_order(servers), (3, 5, 4), strict=True):
        server.set(NAME, b"version %d" % version, version)
    assert store.head(KEY).size == len(b"version 5")
    assert b"".join(store.read(KEY)) == b"version 5"
    assert _versions(servers) == [5, 5, 5]
    assert _values(servers) == [b"version 5"] * 3


def test_healing_never_overwrites_what_is_newer(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    order = _order(servers)
    order[0].set(NAME, b"old", 2)
    get = order[0].get

    def overtaken(key: bytes) -> tuple[bytes, int] | None:
        if not key.startswith(b"?"):
            order[1].set(NAME, b"new", 3)  # since it was asked, somebody has written
        return get(key)

    _changed(order[0], "get", overtaken)
    assert store.get(KEY) == b"old"
    assert _values(order) == [b"old", b"new", b"old"]
    assert store.get(KEY) == b"new"
    assert _values(order) == [b"new"] * 3


def test_a_value_that_was_replaced_while_reading_is_not_spread(
    store: BeansdbStore, servers: list[FakeBeansdb]
) -> None:
    order = _order(servers)
    order[0].set(NAME, b"old", 2)
    get = order[0].get

    def replaced(key: bytes) -> tuple[bytes, int] | None:
        if not key.startswith(b"?"):
            order[0].set(NAME, b"new", 3)
        return get(key)

    _changed(order[0], "get", replaced)
    assert store.get(KEY) == b"new"
    assert _versions(order) == [3, 0, 0]  # not the new value under the old number


def test_a_blob_that_keeps_vanishing(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    for server in servers:
        server.set(NAME, b"x")
        told = server.get(b"?" + NAME)
        _changed(server, "get", lambda key, told=told: told if key.startswith(b"?") else None)
    with pytest.raises(StoreFailed, match="changes too often"):
        store.get(KEY)


@pytest.mark.parametrize(
    ("dead", "reads", "missing"), [(0, 3, True), (2, 1, True), (1, 3, False), (2, 2, False), (3, 1, False)]
)
def test_missing_is_said_when_r_servers_have_nothing(
    servers: list[FakeBeansdb], dead: int, reads: int, missing: bool
) -> None:
    with closing(_store(servers, reads=reads)) as store:
        for server in servers[:dead]:
            server.kill()
        for ask in (store.get, store.head):
            with pytest.raises(StoreFailed) as caught:
                ask(KEY)
            assert isinstance(caught.value, BlobMissing) is missing
        if missing:
            assert list(store.list()) == []
        else:
            with pytest.raises(StoreFailed, match="are needed"):
                list(store.list())


def test_one_of_three_is_enough_to_read(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    store.put(KEY, b"x")
    servers[0].kill()
    servers[1].kill()
    assert store.get(KEY) == b"x"
    assert [blob.key for blob in store.list()] == [KEY]


def test_a_server_that_fails_is_left_alone_for_a_while(
    store: BeansdbStore, servers: list[FakeBeansdb], long_alone: None
) -> None:
    store.put(KEY, b"x")
    order = _order(servers)
    order[0].kill()
    assert store.get(KEY) == b"x"
    order[0].start()
    before = len(order[0].received)
    assert store.get(KEY) == b"x"
    assert len(order[0].received) == before
    order[1].kill()
    order[2].kill()
    assert store.get(KEY) == b"x"  # now it is needed
    assert len(order[0].received) > before


def test_a_server_that_was_restarted_is_asked_at_once(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    store.put(KEY, b"x")
    with ThreadPoolExecutor(4) as pool:  # several connections lie idle
        assert set(pool.map(store.get, [KEY] * 20)) == {b"x"}
    for server in servers:
        server.kill()
        server.start()
    store.put(KEY, b"y")
    assert _values(servers) == [b"y"] * 3


def test_a_server_that_comes_back_empty_is_healed(
    servers: list[FakeBeansdb], store: BeansdbStore, always_asked: None
) -> None:
    store.put(KEY, b"x")
    servers[0].kill()
    servers[0].records.clear()
    assert store.get(KEY) == b"x"
    servers[0].start()
    assert store.get(KEY) == b"x"
    assert _values(servers) == [b"x"] * 3


def test_a_hung_server_costs_one_timeout(
    servers: list[FakeBeansdb], caplog: pytest.LogCaptureFixture, long_alone: None
) -> None:
    with closing(BeansdbStore([server.address for server in servers], timeout_s=5)) as store:
        store.put(KEY, b"x")
        hung = _order(servers)[0]
        hung.hang()
        try:
            assert store.get(KEY) == b"x"
            asked = len(hung.received)
            store.put(KEY, b"y")
            assert store.get(KEY) == b"y"
            store.check()
            assert len(hung.received) == asked  # left alone
            assert hung.address in caplog.text
            assert "timed out" in caplog.text
        finally:
            hung.answering.set()


def test_errors_do_not_name_servers(servers: list[FakeBeansdb]) -> None:
    with closing(_store(servers)) as store:
        for server in servers:
            server.kill()
        with pytest.raises(StoreFailed) as caught:
            store.get(KEY)
        assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", [b"?\r\n", b"VALUE ?a/b.jpg 0 3\r\n1 x\r\nEND\r\n", b"SERVER_ERROR broken\r\n", b""]
)
def test_an_answer_that_is_none(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with closing(BeansdbStore([f"127.0.0.1:{listener.getsockname()[1]}"])) as store, pytest.raises(StoreFailed):
            store.head(KEY)
        thread.join()


# --- deleting --------------------------------------------------------------------------------------------------


def test_a_deletion_is_a_version_too(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    store.put(KEY, b"x")
    servers[1].set(NAME, b"y", 7)
    assert store.delete(KEY) is True
    assert _versions(servers) == [-8] * 3
    assert store.delete(KEY) is False
    store.create(KEY, b"z")
    assert _versions(servers) == [9] * 3


def test_what_was_deleted_while_a_server_was_away_stays_deleted(
    servers: list[FakeBeansdb], store: BeansdbStore, always_asked: None
) -> None:
    for verb in (store.get, store.head, store.delete):
        store.put(KEY, b"x")
        servers[0].kill()
        assert store.delete(KEY) is True
        servers[0].start()
        assert _versions(servers)[0] > 0
        if verb == store.delete:
            assert store.delete(KEY) is False
        else:
            with pytest.raises(BlobMissing):
                verb(KEY)
        assert [blob.key for blob in store.list()] == []
        if verb != store.head:  # which only looks
            assert _versions(servers)[0] == _versions(servers)[1] < 0


def test_older_servers_do_not_tell_of_deletions_but_their_trees_do() -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(FakeBeansdb(hides_deleted=True)) for _ in range(3)]
        store = stack.enter_context(closing(_store(servers)))
        store.put(KEY, b"x")
        servers[0].records[NAME] = Record(version=1, value=b"x", flag=0, tstamp=1)
        for server in servers[1:]:
            server.set(NAME, b"", -1)
        with pytest.raises(BlobMissing):
            store.get(KEY)
        assert _versions(servers) == [-2] * 3
        store.create(KEY, b"new")
        assert _versions(servers) == [3] * 3


# --- at the same time ------------------------------------------------------------------------------------------


def _together(count: int, work: Callable[[int], object]) -> None:
    barrier = threading.Barrier(count)

    def start(number: int) -> None:
        barrier.wait(30)
        work(number)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(start, range(count)))


def test_many_writers_leave_one_blob(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:

    def write(number: int) -> None:
        for turn in range(10):
            store.put(KEY, b"%d-%d" % (number, turn))

    _together(8, write)
    assert len(set(_values(servers))) == 1
    assert _versions(servers) == [80] * 3


def test_writers_in_two_processes_leave_one_blob(servers: list[FakeBeansdb]) -> None:
    with closing(_store(servers)) as one, closing(_store(servers)) as other:

        def write(number: int) -> None:
            for turn in range(20):
                (one, other)[number].put(KEY, b"%d-%d" % (number, turn))

        _together(2, write)
        assert len(set(_values(servers))) == 1
        assert one.get(KEY) == other.get(KEY) in (b"0-19", b"1-19")


def test_of_many_creators_one_wins_while_all_servers_are_there(servers: list[FakeBeansdb]) -> None:
    with closing(_store(servers)) as one, closing(_store(servers)) as other:
        won: list[bytes] = []

        def create(number: int) -> None:
            for turn in range(10):
                try:
                    (one, other)[number % 2].create(f"race/{turn}", b"%d" % number)
                except BlobExists:
                    continue
                won.append(b"%d of %d" % (turn, number))

        _together(6, create)
        assert sorted(winner[:1] for winner in won) == [b"%d" % turn for turn in range(10)]
        for turn in range(10):
            (value,) = set(_values(servers, b"race/%d" % turn))
            assert b"%d of %s" % (turn, value or b"") in won


def test_a_write_whose_answer_was_lost_counts(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    order = _order(servers)
    store.put("other", b"x")  # so that there are idle connections
    taken = order[0].set

    def take_and_drop(*asked: object) -> bool:
        assert taken(*asked)  # type: ignore[arg-type]
        _changed(order[0], "set", taken)
        raise ConnectionError

    _changed(order[0], "set", take_and_drop)
    store.create(KEY, b"x")
    assert _versions(servers) == [1] * 3


# --- repair ----------------------------------------------------------------------------------------------------


def _same(servers: list[FakeBeansdb]) -> bool:
    live = [{name: (r.version, r.value, r.flag) for name, r in s.records.items() if r.version > 0} for s in servers]
    return live[0] == live[1] == live[2]


def _filled(store: BeansdbStore, count: int) -> list[bytes]:
    for number in range(count):
        store.put(f"{number % 7}/{number}", b"%d" % number)
    return [b"%d/%d" % (number % 7, number) for number in range(count)]


def test_nothing_to_repair(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    _filled(store, 50)
    steps: list[tuple[int, int]] = []
    before = sum(len(server.received) for server in servers)
    assert store.repair(lambda done, total: steps.append((done, total))) == RepairReport()
    assert steps == [(done, 16) for done in range(1, 17)]
    assert sum(len(server.received) for server in servers) - before <= 16 * 3  # only the trees' tops


def test_repair_looks_only_where_trees_differ(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    names = _filled(store, 400)
    del servers[2].records[names[7]]
    before = sum(len(server.received) for server in servers)
    report = store.repair()
    assert (report.copied, report.deleted, report.failed) == (1, 0, 0)
    assert report.compared <= 16
    assert sum(len(server.received) for server in servers) - before < 100
    assert _same(servers)


def test_repair_copies_in_every_direction(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    names = _filled(store, 100)
    for number, name in enumerate(names):
        server = servers[number % 3]
        match number % 5:
            case 0:
                del server.records[name]
            case 1:
                server.set(name, b"newer", 9, 0x10)
            case 2:
                server.set(name, b"", -1)
    report = store.repair()
    assert report == RepairReport(compared=report.compared, copied=20 + 2 * 20, deleted=2 * 20, failed=0)
    assert _same(servers)
    assert _values(servers, names[1]) == [b"newer"] * 3
    assert _versions(servers, names[1]) == [9] * 3
    assert max(_versions(servers, names[2])) < 0
    assert store.repair() == RepairReport()


@pytest.mark.parametrize("hides_deleted", [True, False])
def test_repair_fills_an_empty_server(hides_deleted: bool) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(FakeBeansdb(split=8, hides_deleted=hides_deleted)) for _ in range(3)]
        store = stack.enter_context(closing(_store(servers)))
        names = _filled(store, 200)
        store.delete("1/1")
        servers[1].records.clear()
        servers[1].received.clear()
        report = store.repair()
        assert (report.copied, report.deleted, report.failed) == (199, 0, 0)
        assert sum(line.startswith(b"set") for line in servers[1].received) == 199
        assert _same(servers)
        assert len(servers[1].records) == len(names) - 1  # of what is deleted nothing is needed
        assert (store.repair().copied, store.repair().failed) == (0, 0)


def test_repair_settles_two_values_of_the_same_version(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    for server, value, stamp in zip(servers, (b"first", b"last", b"first"), (10, 20, 10), strict=True):
        server.records[NAME] = Record(version=4, value=value, flag=0, tstamp=stamp)
    assert store.get(KEY) == b"last"
    assert store.repair() == RepairReport(compared=1, copied=3)
    assert (_values(servers), _versions(servers)) == ([b"last"] * 3, [5] * 3)


@pytest.mark.parametrize("last", ["value", "deletion"])
def test_repair_settles_a_value_and_a_deletion_of_the_same_version(
    store: BeansdbStore, servers: list[FakeBeansdb], last: str
) -> None:
    for server in servers[:2]:
        server.records[NAME] = Record(version=4, value=b"x", flag=0, tstamp=20 if last == "value" else 10)
    servers[2].records[NAME] = Record(version=-4, value=b"", flag=0, tstamp=15)
    report = store.repair()
    if last == "value":
        assert report == RepairReport(compared=1, copied=3)
        assert _values(servers) == [b"x"] * 3
    else:
        assert report == RepairReport(compared=1, deleted=2)
        assert max(_versions(servers)) < 0
    assert store.repair() == RepairReport()


def test_repair_does_what_it_can_and_tells_what_failed(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    names = _filled(store, 50)
    servers[0].records.clear()
    servers[2].kill()
    report = store.repair()
    assert (report.copied, report.failed) == (50, 1)
    assert len(servers[0].records) == len(names)
    servers[1].kill()
    assert store.repair() == RepairReport(failed=2)


def test_repair_goes_on_when_a_server_dies_in_the_middle(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    _filled(store, 100)
    servers[1].records.clear()
    dying = servers[0]

    def die(done: int, _: int) -> None:
        if done == 8:
            dying.kill()

    report = store.repair(die)
    assert (report.copied, report.failed) == (100, 1)
    assert set(servers[1].records) == set(servers[2].records)


def test_a_value_that_cannot_be_copied_is_counted(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    servers[0].records[NAME] = Record(version=4, value=b"x", flag=COMPRESSED, tstamp=1)
    assert store.repair() == RepairReport(compared=1, failed=1)


def test_a_server_that_takes_nothing_is_given_up(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    _filled(store, 50)
    servers[0].records.clear()

    def die(*_: object) -> bool:
        raise ConnectionError

    _changed(servers[0], "set", die)
    report = store.repair()
    assert (report.copied, report.failed) == (0, 1)


def test_a_value_that_changed_since_it_was_listed_is_not_copied(
    store: BeansdbStore, servers: list[FakeBeansdb]
) -> None:
    servers[0].set(NAME, b"old", 4)
    get = servers[0].get

    def replaced(key: bytes) -> tuple[bytes, int] | None:
        if key == NAME:
            servers[0].set(NAME, b"new", 5)
        return get(key)

    _changed(servers[0], "get", replaced)
    assert store.repair() == RepairReport(compared=1, failed=1)
    assert _values(servers) == [b"new", None, None]
    assert store.repair() == RepairReport(compared=1, copied=2)
    assert _versions(servers) == [5, 5, 5]


def test_a_repair_while_others_write(store: BeansdbStore, servers: list[FakeBeansdb]) -> None:
    names = _filled(store, 60)
    servers[2].records.clear()

    def work(number: int) -> None:
        if number == 0:
            store.repair()
            return
        for turn in range(60):
            store.put(f"{turn % 7}/{turn}", b"new %d" % turn)

    _together(2, work)
    assert _same(servers)
    assert [store.get(name.decode()) for name in names] == [b"new %d" % turn for turn in range(60)]


# --- the real server -------------------------------------------------------------------------------------------


@pytest.fixture
def real(tmp_path: Path) -> Iterator[BeansdbStore]:
    """A store on two real servers: the program that the environment variable BEANSDB names."""
    program = os.environ.get("BEANSDB")
    if not program:
        pytest.skip("BEANSDB names no beansdb program")
    ports = free_ports(2)
    with ExitStack() as stack:
        for port in ports:
            folder = tmp_path / str(port)
            folder.mkdir()
            command = [program, "-p", str(port), "-l", "127.0.0.1", "-H", str(folder)]
            command += ["-u", "root"] if os.getuid() == 0 else []
            stack.enter_context(running(command, port, listens, log=folder / "log"))
        yield stack.enter_context(closing(BeansdbStore([f"127.0.0.1:{port}" for port in ports])))


def test_the_real_server_keeps_blobs(real: BeansdbStore) -> None:
    bodies = {f"a/{number} é": os.urandom(number * 100) for number in range(40)}
    before = time.time()
    for key, body in bodies.items():
        real.create(key, body)
    for key, body in bodies.items():
        assert real.get(key) == body
        assert real.head(key).size == len(body)
        assert abs(real.head(key).modified.timestamp() - before) < 60
    assert [blob.key for blob in real.list("a/")] == sorted(bodies)
    with pytest.raises(BlobExists):
        real.create("a/1 é", b"x")
    real.put("a/1 é", b"new")
    assert real.get("a/1 é") == b"new"
    assert real.delete("a/2 é") is True
    assert real.delete("a/2 é") is False
    real.create("a/2 é", b"again")
    assert real.get("a/2 é") == b"again"
    assert real.delete_prefix("a/") == len(bodies)
    assert list(real.list()) == []
    real.check()


def test_real_servers_are_repaired(real: BeansdbStore) -> None:
    one, other = real._servers
    for number in range(600):
        one.set(b"k%d" % number, b"%d" % number, version=3)
        if number % 2:
            other.set(b"k%d" % number, b"older", version=2)
    other.set(b"k7", b"", version=-9)
    report = real.repair()
    assert (report.copied, report.deleted, report.failed) == (599, 1, 0)
    assert one.get(b"k8") == other.get(b"k8") == (b"8", 0)
    assert one.get(b"k7") is None
    assert (real.repair().copied, real.repair().deleted) == (0, 0)
