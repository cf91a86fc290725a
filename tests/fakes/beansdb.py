"""A Beansdb server in a thread, for tests: it follows every rule of the real one that a client can see.

Source: https://github.com/douban/beansdb, `src/beansdb.c` (commands), `src/hstore.c`, `src/bitcask.c` (versions, deletions),
`src/htree.c` (the tree), `src/record.c` (the hash of values).
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedIOBase
from types import TracebackType

from tests.ports import free_port

MAX_KEY = 250
MAX_VALUE = 100 * 1024 * 1024
COMPRESSED = 0x10000
"""The server's own flag: a value that is set with it cannot be read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A key's last change; `value` is empty for a deleted one, whose version is negative."""

    version: int
    value: bytes
    flag: int
    tstamp: int

    @property
    def hash(self) -> int:
        return gen_hash(self.value) if self.version > 0 else 0


class FakeBeansdb:
    """Serves on a loopback port, the same one after each `start`; what was stored outlives `stop` and `kill`.

    `split` is how many keys the tree lists as keys before it lists folders (256 in the real one), and `filtered_split`
    the same for a listing of names that begin alike (100 000). With `hides_deleted`, `?key` says nothing of a deleted key, as older servers do.
    """

    def __init__(self, *, split: int = 256, filtered_split: int = 100_000, hides_deleted: bool = False) -> None:
        self.split, self.filtered_split, self.hides_deleted = split, filtered_split, hides_deleted
        self.records: dict[bytes, Record] = {}
        self.received: list[bytes] = []
        """All command lines."""
        self.answering = threading.Event()
        self.answering.set()
        self.port = free_port()  # none of those that others may be given while it is away
        self._lock = threading.RLock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> FakeBeansdb:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert self._server is None
        self._server = _Server(("127.0.0.1", self.port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """End, closing all connections, as a killed process does; a second time does nothing."""
        if self._server is None or self._thread is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        self._thread.join()
        server.end()
        server.server_close()  # waits for the threads

    kill = stop

    def hang(self) -> None:
        """Accept everything and answer nothing, until `answering` is set again."""
        self.answering.clear()

    def wait(self) -> None:
        """Wait while hanging; a stopped server does not."""
        while self._server is not None and not self.answering.wait(0.02):
            pass

    def set(self, key: bytes, value: bytes, version: int = 0, flag: int = 0) -> bool:
        if not good_key(key) or (version < 0 and value) or len(value) > MAX_VALUE:
            return False
        with self._lock:
            there = self.records.get(key)
            old = there.version if there else 0
            if version < 0 and old <= 0:
                return False  # nothing to delete
            automatic = version == 0
            if automatic:
                version = abs(old) + 1
            elif version == -1:
                version = -abs(old) - 1
            elif abs(version) <= abs(old):
                return False
            now = int(time.time())
            if there and old > 0 and version > 0 and (there.value, there.flag) == (value, flag):
                now, version = there.tstamp, old if automatic else version  # the same again is not written
            self.records[key] = Record(version=version, value=value, flag=flag, tstamp=now)
            return True

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """Return a value and its flag, or what is told of `?key` or `@path`."""
        with self._lock:
            if key.startswith(b"@"):
                listed = self._list(key[1:].decode())
                return None if listed is None else (listed, 0)
            record = self.records.get(key.removeprefix(b"?"))
            if record is not None and record.flag & COMPRESSED:
                del self.records[key.removeprefix(b"?")]  # as the server does with what it cannot decompress
                record = None
            if record is None or (record.version < 0 and (self.hides_deleted or not key.startswith(b"?"))):
                return None
            if key.startswith(b"?"):
                told = (record.version, record.hash, record.flag, len(record.value), record.tstamp)
                return " ".join(map(str, told)).encode(), 0
            return record.value, record.flag

    def _list(self, asked: str) -> bytes | None:
        path, _, prefix = asked.partition(":")
        if len(path) > 8 or any(digit not in "0123456789abcdef" for digit in path):
            return None
        below = self._below(path)
        if path and (len(path) == 8 or self._count(below) <= (self.filtered_split if prefix else self.split)):
            listed = [(key, record) for key, record in below.items() if key.startswith(prefix.encode())]
            return b"".join(b"%s %d %d\n" % (key, record.hash, record.version) for key, record in listed)
        lines = []
        for digit in "0123456789abcdef":
            inside = self._below(path + digit)
            lines.append(f"{digit}/ {self._hash(path + digit, inside)} {self._count(inside)}\n")
        return "".join(lines).encode()

    def _below(self, path: str) -> dict[bytes, Record]:
        return {key: record for key, record in self.records.items() if f"{fnv1a(key):08x}".startswith(path)}

    def _count(self, records: dict[bytes, Record]) -> int:
        return sum(record.version > 0 for record in records.values())

    def _hash(self, path: str, records: dict[bytes, Record]) -> int:
        if self._count(records) <= self.split or len(path) == 8:
            return sum(fnv1a(key) * record.hash for key, record in records.items()) & 0xFFFF
        total = 0
        for digit in "0123456789abcdef":
            total = total * 97 + self._hash(path + digit, self._below(path + digit))
        return total & 0xFFFF


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], fake: FakeBeansdb) -> None:
        self.fake = fake
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Connection)

    def end(self) -> None:
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Connection(socketserver.StreamRequestHandler):
    server: _Server
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.server.connections.add(self.request)
        super().setup()

    def handle(self) -> None:
        with suppress(ConnectionError, ValueError):
            while line := self.rfile.readline():
                self.server.fake.received.append(line.strip())
                answer = _answer(self.server.fake, line.split(), self.rfile)
                self.server.fake.wait()
                self.wfile.write(answer)

    def finish(self) -> None:
        with suppress(ConnectionError):
            super().finish()
        self.server.connections.discard(self.request)


def _answer(fake: FakeBeansdb, words: list[bytes], body: BufferedIOBase) -> bytes:
    match words:
        case [b"get", *keys] if keys:
            if any(len(key) > MAX_KEY for key in keys):
                return b"CLIENT_ERROR bad command line format\r\n"
            found = [(key, fake.get(key)) for key in keys]
            values = [b"VALUE %s %d %d\r\n%s\r\n" % (key, hit[1], len(hit[0]), hit[0]) for key, hit in found if hit]
            return b"".join(values) + b"END\r\n"
        case [b"set", key, flag, version, size]:
            value = body.read(int(size) + 2)
            if len(key) > MAX_KEY:
                return b"CLIENT_ERROR bad command line format\r\n"
            if not value.endswith(b"\r\n") or len(value) != int(size) + 2:
                return b"CLIENT_ERROR bad data chunk\r\n"
            return b"STORED\r\n" if fake.set(key, value[:-2], int(version), int(flag)) else b"NOT_STORED\r\n"
        case [b"delete", key]:
            return b"DELETED\r\n" if fake.set(key, b"", -1) else b"NOT_FOUND\r\n"
        case [b"stats"]:
            return b"STAT version 0.7\r\nSTAT total_items %d\r\nEND\r\n" % len(fake.records)
        case _:
            return b"ERROR\r\n"


def good_key(key: bytes) -> bool:
    return 0 < len(key) <= MAX_KEY and key[0] not in b"@?" and key[0] < 128 and all(b > 32 and b != 127 for b in key)


def fnv1a(data: bytes) -> int:
    value = 2166136261
    for byte in data:
        signed = byte - 256 if byte > 127 else byte
        value = ((value ^ (signed % 2**32)) * 16777619) % 2**32
    return value


def gen_hash(value: bytes) -> int:
    start = len(value) * 97
    if len(value) <= 1024:
        return (start + fnv1a(value)) % 2**16
    return ((start + fnv1a(value[:512])) * 97 + fnv1a(value[-512:])) % 2**16
