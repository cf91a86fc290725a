"""The fake Beansdb keeps the rules of the real one: spoken to in its own words, without a client library."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.fakes.beansdb import COMPRESSED, MAX_VALUE, FakeBeansdb, fnv1a, gen_hash


@pytest.fixture
def fake() -> Iterator[FakeBeansdb]:
    with FakeBeansdb(split=4) as running:
        yield running


def _said(fake: FakeBeansdb, *commands: bytes) -> list[bytes]:
    """Return the lines that the server answers on one connection."""
    with closing(socket.create_connection(("127.0.0.1", fake.port), timeout=20)) as client:
        client.sendall(b"".join(command + b"\r\n" for command in commands))
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answers:
            return [line for line in answers.read().splitlines() if line]  # a listing ends its last line by itself


SIGNED = bytes(i * 7 % 256 for i in range(4000))


# The numbers come from a C program, where `char` is signed.
@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0x811C9DC5), (b"foobar", 0xBF9CF968), (b"\xff", 0xF9F3A14E), (SIGNED[:256], 0xD289A0C5)],
)
def test_keys_are_hashed_with_signed_characters(data: bytes, expected: int) -> None:
    assert fnv1a(data) == expected


@pytest.mark.parametrize(("size", "expected"), [(0, 40389), (1, 23936), (1024, 11717), (1025, 36907), (4000, 64778)])
def test_of_a_long_value_both_ends_are_hashed(size: int, expected: int) -> None:
    assert gen_hash(SIGNED[:size]) == expected


def test_set_get_and_delete(fake: FakeBeansdb) -> None:
    commands = (b"set k 7 0 3\r\nabc", b"get k", b"delete k", b"get k", b"delete k")
    assert _said(fake, *commands) == [b"STORED", b"VALUE k 7 3", b"abc", b"END", b"DELETED", b"END", b"NOT_FOUND"]


def test_several_keys_at_once(fake: FakeBeansdb) -> None:
    fake.set(b"a", b"1")
    fake.set(b"b", b"2")
    assert _said(fake, b"get a none b") == [b"VALUE a 0 1", b"1", b"VALUE b 0 1", b"2", b"END"]


def test_the_exptime_is_the_version(fake: FakeBeansdb) -> None:
    commands = (
        b"set k 0 0 1\r\na",
        b"set k 0 0 1\r\nb",
        b"set k 0 7 1\r\nc",
        b"set k 0 7 1\r\nd",
        b"set k 0 6 1\r\ne",
    )
    assert _said(fake, *commands) == [b"STORED"] * 3 + [b"NOT_STORED"] * 2
    assert (fake.records[b"k"].version, fake.records[b"k"].value) == (7, b"c")


def test_the_same_value_again_keeps_its_version(fake: FakeBeansdb) -> None:
    assert fake.set(b"k", b"a", 3)
    assert fake.set(b"k", b"a")
    assert fake.records[b"k"].version == 3
    assert fake.set(b"k", b"a", 9)
    assert fake.records[b"k"].version == 9


def test_a_deleted_key_has_a_negative_version(fake: FakeBeansdb) -> None:
    fake.set(b"k", b"a", 3)
    assert _said(fake, b"delete k") == [b"DELETED"]
    stamp = fake.records[b"k"].tstamp
    assert _said(fake, b"get ?k") == [b"VALUE ?k 0 %d" % len(f"-4 0 0 0 {stamp}"), b"-4 0 0 0 %d" % stamp, b"END"]
    assert not fake.set(b"k", b"b", 4)
    assert fake.set(b"k", b"b")
    assert fake.records[b"k"].version == 5


def test_a_deletion_may_bring_its_version(fake: FakeBeansdb) -> None:
    fake.set(b"k", b"a", 3)
    commands = (
        b"set k 0 -3 0\r\n",
        b"set k 0 -9 1\r\nx",
        b"set k 0 -9 0\r\n",
        b"set k 0 -10 0\r\n",
        b"set none 0 -5 0\r\n",
    )
    assert _said(fake, *commands) == [b"NOT_STORED", b"NOT_STORED", b"STORED", b"NOT_STORED", b"NOT_STORED"]
    assert fake.records[b"k"].version == -9


def test_an_older_server_hides_deleted_keys() -> None:
    with FakeBeansdb(hides_deleted=True) as fake:
        fake.set(b"k", b"a")
        fake.set(b"k", b"", -1)
        assert _said(fake, b"get ?k") == [b"END"]
        assert _said(fake, b"get @%08x" % fnv1a(b"k"))[1] == b"k 0 -2"


def test_what_is_told_of_a_key(fake: FakeBeansdb) -> None:
    fake.set(b"k", b"abc", 5, 7)
    stamp = fake.records[b"k"].tstamp
    assert _said(fake, b"get ?k")[1] == b"5 %d 7 3 %d" % (gen_hash(b"abc"), stamp)


@pytest.mark.parametrize("key", [b"@k", b"?k", b"\xc3\xa4", b"a\tb", b"a\x7fb"])
def test_keys_that_are_not_stored(fake: FakeBeansdb, key: bytes) -> None:
    assert not fake.set(key, b"x")
    assert fake.records == {}


def test_keys_have_at_most_250_bytes(fake: FakeBeansdb) -> None:
    longest = b"k" * 250
    assert _said(fake, b"set %s 0 0 1\r\nx" % longest, b"set %sk 0 0 1\r\nx" % longest) == [
        b"STORED", b"CLIENT_ERROR bad command line format",
    ]  # fmt: skip
    assert _said(fake, b"get ?%s" % longest) == [b"CLIENT_ERROR bad command line format"]  # the ? counts too
    assert _said(fake, b"get %s" % longest)[1] == b"x"


def test_values_have_at_most_100_mebibytes(fake: FakeBeansdb) -> None:
    assert not fake.set(b"k", bytes(MAX_VALUE + 1))
    assert fake.set(b"k", bytes(MAX_VALUE))


def test_the_servers_own_flag_loses_the_value(fake: FakeBeansdb) -> None:
    assert _said(fake, b"set k %d 0 1\r\nx" % COMPRESSED, b"get k", b"get ?k") == [b"STORED", b"END", b"END"]


@pytest.mark.parametrize("command", [b"add k 0 0 1", b"cas k 0 0 1 1", b"touch k 0", b"replace k 0 0 1", b"gets k"])
def test_what_there_is_not(fake: FakeBeansdb, command: bytes) -> None:
    assert _said(fake, command) == [b"ERROR"]


def test_a_sign_of_life(fake: FakeBeansdb) -> None:
    assert _said(fake, b"stats") == [b"STAT version 0.7", b"STAT total_items 0", b"END"]


def test_the_tree(fake: FakeBeansdb) -> None:
    keys = [b"k%d" % number for number in range(200)]
    for key in keys:
        fake.set(key, key)
    fake.set(keys[0], b"", -1)
    top = _said(fake, b"get @")[1:-1]
    assert [line.split()[0] for line in top] == [b"%x/" % digit for digit in range(16)]
    assert sum(int(line.split()[2]) for line in top) == 199
    found = [line for digits in range(256) for line in _said(fake, b"get @%02x" % digits)[1:-1] if b"/" not in line]
    expected = {b"%s %d 1" % (key, gen_hash(key)) for key in keys[1:]} | {b"k0 0 -2"}
    assert set(found) <= expected
    assert len(found) > 150  # the others lie deeper
    assert _said(fake, b"get @%08x" % fnv1a(b"k7"))[1] == b"k7 %d 1" % gen_hash(b"k7")
    assert _said(fake, b"get @xyz", b"get @123456789") == [b"END", b"END"]


def test_the_tree_lists_names_that_begin_alike(fake: FakeBeansdb) -> None:
    for number in range(200):
        fake.set(b"k%d" % number, b"x", 1)
    found = [line for digit in range(16) for line in _said(fake, b"get @%x:k19" % digit)[1:-1]]
    assert sorted(line.split()[0] for line in found) == sorted([b"k19", *(b"k19%d" % number for number in range(10))])
    assert len(_said(fake, b"get @:k19")) == 18  # the top is always the same
    fake.filtered_split = 4
    digit = fnv1a(b"k19") >> 28
    assert [line for line in _said(fake, b"get @%x:k19" % digit)[1:-1] if b"/" not in line] == []


def test_trees_are_equal_when_the_values_are(fake: FakeBeansdb) -> None:
    with FakeBeansdb(split=4) as other:
        for number in range(100):
            fake.set(b"k%d" % number, b"x", 1)
            other.set(b"k%d" % (99 - number), b"x", 2)
        assert fake.get(b"@") == other.get(b"@")
        other.set(b"k7", b"y")
        assert fake.get(b"@") != other.get(b"@")


def test_it_comes_back_on_the_same_port_with_what_it_had() -> None:
    with FakeBeansdb() as fake:
        fake.set(b"k", b"x")
        port = fake.port
        fake.kill()
        with pytest.raises(ConnectionError):
            _said(fake, b"get k")
        fake.start()
        assert fake.port == port
        assert _said(fake, b"get k")[1] == b"x"
