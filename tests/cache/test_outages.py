"""Real servers that die, hang, come back, refuse, or are none: a bounded wait and a miss."""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Protocol

import pytest
from redis import Redis
from tests import programs
from tests.ports import free_port
from tests.waiting import WAIT_S, until

from lazypix.cache import Cache, CacheFailed
from lazypix.cache.guarded import Guarded
from lazypix.cache.memcached import MemcachedCache
from lazypix.cache.opening import open_cache
from lazypix.cache.process import ProcessCache
from lazypix.cache.redis import RedisCache
from lazypix.cache.servers import RedisServer

HUNG_S = 0.1
"""A timeout for servers that are known to hang."""


class Start(Protocol):
    def __call__(self, folder: Path, *, port: int | None = None) -> AbstractContextManager[programs.Program]: ...


START: dict[str, Start] = {"redis": programs.redis, "memcached": programs.memcached}


def _adapter(name: str, port: int, timeout_s: float = WAIT_S) -> Cache:
    if name == "redis":
        return RedisCache(RedisServer(host="127.0.0.1", port=port), timeout_s=timeout_s)
    return MemcachedCache("127.0.0.1", port, timeout_s=timeout_s)


@pytest.fixture(params=START)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Counting(ProcessCache):
    """Passes on to another cache, and counts."""

    def __init__(self, cache: Cache) -> None:
        super().__init__()
        self._inner = cache
        self.asked = 0

    def get(self, key: str) -> bytes | None:
        self.asked += 1
        return self._inner.get(key)

    def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self._inner.set(key, value, ttl_s=ttl_s)


def test_a_server_that_is_not_there_fails(name: str) -> None:
    port = free_port()
    with closing(_adapter(name, port)) as cache:
        for _ in range(2):
            with pytest.raises(CacheFailed, match="refused"):
                cache.get("a")
            with pytest.raises(CacheFailed, match="refused"):
                cache.set("a", b"1", ttl_s=60)
            with pytest.raises(CacheFailed, match="refused"):
                cache.add("a", b"1", ttl_s=60)
            with pytest.raises(CacheFailed, match="refused"):
                cache.delete("a")


def _connections(cache: Cache, server: programs.Program, count: int) -> None:
    """Have `count` connections opened that lie idle then: all are needed at once while the server stands still."""
    server.pause()
    with ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(cache.get, str(number)) for number in range(count)]
        until(lambda: _open_to(server.port) >= count)
        server.resume()
        assert [future.result(WAIT_S) for future in asked] == [None] * count


def _open_to(port: int) -> int:
    """Count this process' connections to a port of this machine (on Linux)."""
    ours = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            ours.add(str(descriptor.readlink()))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    remote = f"{port:04X}"
    return sum(line[2].endswith(f":{remote}") and f"socket:[{line[9]}]" in ours for line in lines)


def test_a_server_that_was_restarted_costs_one_failure_at_most(name: str, tmp_path: Path) -> None:
    port = free_port()
    with closing(_adapter(name, port)) as cache:
        with START[name](tmp_path, port=port) as server:
            cache.set("a", b"1", ttl_s=60)
            _connections(cache, server, 5)
        with pytest.raises(CacheFailed):
            cache.get("a")
        with START[name](tmp_path, port=port):
            assert cache.get("a") is None
            cache.set("a", b"2", ttl_s=60)
            assert cache.get("a") == b"2"


def test_a_server_that_was_restarted_unnoticed_costs_one_failure_at_most(name: str, tmp_path: Path) -> None:
    port = free_port()
    with closing(_adapter(name, port)) as cache:
        with START[name](tmp_path, port=port) as server:
            _connections(cache, server, 5)
        with START[name](tmp_path, port=port):
            with suppress(CacheFailed):
                cache.get("a")
            for number in range(10):
                cache.set("a", b"%d" % number, ttl_s=60)
                assert cache.get("a") == b"%d" % number


def test_a_server_that_hangs_costs_a_timeout_and_nothing_gets_mixed_up(name: str, tmp_path: Path) -> None:
    with START[name](tmp_path) as server, closing(_adapter(name, server.port)) as patient:
        patient.set("a", b"value of a", ttl_s=60)
        patient.set("b", b"value of b", ttl_s=60)
        with closing(_adapter(name, server.port, HUNG_S)) as cache:
            with suppress(CacheFailed):  # the machine may be slower than this
                cache.get("a")
            server.pause()
            for _ in range(2):
                with pytest.raises(CacheFailed, match=r"(?i)time"):
                    cache.get("a")
            server.resume()
            # Answers that come late must not be taken for those to later questions.
            until(lambda: _got(cache, "b") is not None)
            assert {_got(cache, "b") for _ in range(20)} <= {b"value of b", None}
        assert patient.get("b") == b"value of b"


def _got(cache: Cache, key: str) -> bytes | None:
    try:
        return cache.get(key)
    except CacheFailed:
        return None


def test_a_server_that_hangs_is_asked_once_a_pause(name: str, tmp_path: Path) -> None:
    now = [1000.0]
    with START[name](tmp_path) as server, closing(_adapter(name, server.port, HUNG_S)) as adapter:
        counting = Counting(adapter)
        guarded = Guarded(counting, clock=lambda: now[0], chance=lambda: 0.0)
        server.pause()
        assert [guarded.get("a") for _ in range(1000)] == [None] * 1000
        assert counting.asked == 1
        now[0] += 0.5
        assert [guarded.get("a") for _ in range(1000)] == [None] * 1000
        assert counting.asked == 2
        server.resume()

        def works_again() -> bool:
            now[0] += 10
            guarded.set("a", b"1", ttl_s=60)
            return guarded.get("a") == b"1"

        until(works_again)


def test_one_of_several_servers_that_dies_takes_only_its_own_share(tmp_path: Path) -> None:
    with (
        programs.memcached(tmp_path) as one,
        programs.memcached(tmp_path) as two,
        closing(open_cache(f"memcached://{one.address},{two.address}", timeout_s=WAIT_S)) as cache,
        closing(open_cache(f"memcached://{two.address}", timeout_s=WAIT_S)) as alone,
    ):
        keys = [f"key {number}" for number in range(100)]
        for key in keys:
            cache.set(key, key.encode(), ttl_s=60)
        assert all(cache.get(key) == key.encode() for key in keys)
        left = [key for key in keys if alone.get(key) is not None]
        assert 0 < len(left) < 100
        one.kill()
        for _ in range(3):
            assert [key for key in keys if cache.get(key) is not None] == left
        for key in keys:
            cache.set(key, b"new", ttl_s=60)
        assert [key for key in keys if alone.get(key) is not None] == left  # nothing went to the other server


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis server that wants the password `right-s3cret`."""
    with programs.redis(tmp_path) as server:
        with closing(Redis(port=server.port)) as client:
            client.config_set("requirepass", "right-s3cret")
        yield server.port


@pytest.mark.parametrize("login", ["", ":wrong-s3cret@", "nobody:right-s3cret@", ":wrong%0D%0As3cret@"])
def test_a_wrong_password_is_a_miss_and_never_logged(
    locked: int, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_cache(f"redis://{login}127.0.0.1:{locked}", timeout_s=WAIT_S)) as cache:
        with caplog.at_level(logging.DEBUG):
            cache.set("a", b"1", ttl_s=60)
            assert cache.get("a") is None
        assert "failed, going on without it" in caplog.text
        assert "s3cret" not in caplog.text
        assert "s3cret" not in repr(cache)


@pytest.mark.parametrize("login", [":right-s3cret@", "default:right%2Ds3cret@"])
def test_the_right_password_opens(locked: int, login: str) -> None:
    with closing(open_cache(f"redis://{login}127.0.0.1:{locked}/3?prefix=x:", timeout_s=WAIT_S)) as cache:
        cache.set("a", b"1", ttl_s=60)
        assert cache.get("a") == b"1"
    with closing(Redis(port=locked, password="right-s3cret", db=3)) as client:
        assert client.keys() == [b"x:a"]


def test_errors_of_the_adapter_hold_no_password(locked: int) -> None:
    cache = RedisCache(RedisServer(host="127.0.0.1", port=locked, password="wrong-s3cret"), timeout_s=WAIT_S)
    with closing(cache), pytest.raises(CacheFailed) as raised:
        cache.get("a")
    assert "s3cret" not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__cause__}"


def test_a_full_redis_that_evicts_nothing_is_still_read(tmp_path: Path) -> None:
    with (
        programs.redis(tmp_path) as server,
        closing(Redis(port=server.port)) as client,
        closing(RedisCache(RedisServer(host="127.0.0.1", port=server.port), timeout_s=WAIT_S)) as cache,
    ):
        cache.set("a", b"1", ttl_s=60)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        cache.set("b", b"2", ttl_s=60)
        assert cache.add("c", b"3", ttl_s=60) is False
        assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"1", None, None)
        cache.delete("a")
        assert cache.get("a") is None


@pytest.fixture
def speaking() -> Iterator[Callable[[bytes], tuple[int, list[bytes]]]]:
    """A function that starts a server which answers anything with the same bytes and hangs up.

    It returns the port, and what the server was asked.
    """
    servers: list[tuple[socket.socket, threading.Thread]] = []

    def start(answer: bytes) -> tuple[int, list[bytes]]:
        listener = socket.create_server(("127.0.0.1", 0))
        asked: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client, suppress(OSError):
                    asked.append(client.recv(65536))
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        servers.append((listener, thread))
        return listener.getsockname()[1], asked

    yield start
    for listener, thread in servers:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(WAIT_S)


NONSENSE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\xff\r\n" * 100, b"", b"$x\r\n", b"$5\r\nab", b":\r\n", b"*-5\r\n", b"*1\r\n",
    b"VALUE\r\n", b"VALUE a\r\n", b"VALUE a 0 x\r\nEND\r\n", b"VALUE b 0 1\r\n1\r\nEND\r\n",
    b"ERROR\r\n", b"SERVER_ERROR proxy write to server failed\r\n", b"\r\n", b"-LOADING\r\n", b"-MOVED 1 a:1\r\n",
]  # fmt: skip


@pytest.mark.parametrize("answer", NONSENSE)
def test_a_server_that_speaks_something_else_is_a_miss(
    speaking: Callable[[bytes], tuple[int, list[bytes]]], name: str, answer: bytes
) -> None:
    port, _ = speaking(answer)
    with closing(_adapter(name, port, 2.0)) as adapter:
        for _ in range(2):
            guarded = Guarded(adapter)
            assert guarded.get("a") is None
            guarded = Guarded(adapter)
            guarded.set("a", b"1", ttl_s=60)
            guarded = Guarded(adapter)
            assert guarded.add("a", b"1", ttl_s=60) is False
            guarded = Guarded(adapter)
            guarded.delete("a")


def test_nothing_is_tried_twice(speaking: Callable[[bytes], tuple[int, list[bytes]]], name: str) -> None:
    port, asked = speaking(b"")
    with closing(_adapter(name, port)) as adapter, pytest.raises(CacheFailed):
        adapter.get("a")
    assert len(asked) == 1


def _tls(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        programs.find("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
        "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out",
        str(certificate),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    return certificate, key


def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    certificate, key = _tls(tmp_path)
    port = free_port()
    command = [
        programs.find("redis-server"), "--port", "0", "--tls-port", str(port), "--tls-cert-file", str(certificate),
        "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no", "--save", "",
        "--dir", str(tmp_path),
    ]  # fmt: skip
    with programs.running(command, port, programs.listens, log=tmp_path / "redis.log"):
        with closing(open_cache(f"rediss://127.0.0.1:{port}", timeout_s=WAIT_S)) as cache:
            cache.set("a", b"1", ttl_s=60)
            assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with closing(open_cache(f"rediss://127.0.0.1:{port}", timeout_s=WAIT_S)) as cache:
            cache.set("a", b"1", ttl_s=60)
            assert cache.get("a") == b"1"
        with closing(open_cache(f"redis://127.0.0.1:{port}", timeout_s=2)) as cache:
            assert cache.get("a") is None
