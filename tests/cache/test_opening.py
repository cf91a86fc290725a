"""URLs of caches: what is accepted, what is said of what is not, and that no password is seen anywhere."""

from __future__ import annotations

import sys
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.cache.naming import LONGEST_BYTES, plain_key
from lazypix.cache.opening import ACCEPTED, ACCEPTED_REDIS, open_cache, redis_server
from lazypix.cache.process import ProcessCache
from lazypix.cache.sharded import ShardedCache
from lazypix.errors import SettingsError

GOOD = {
    "redis://localhost": "Guarded(RedisCache(localhost:6379/0))",
    "redis://localhost/": "Guarded(RedisCache(localhost:6379/0))",
    "redis://cache.example:7000/3?prefix=img:": "Guarded(RedisCache(cache.example:7000/3))",
    "redis://:s3cret@10.0.0.1:7000/3": "Guarded(RedisCache(10.0.0.1:7000/3))",
    "redis://user:s3cret@10.0.0.1": "Guarded(RedisCache(10.0.0.1:6379/0))",
    "redis://:s3%40cret%2F@[::1]:7000/3": "Guarded(RedisCache(::1:7000/3))",
    "rediss://:s3cret@cache.example": "Guarded(RedisCache(cache.example:6379/0))",
    "memcached://localhost": "Guarded(MemcachedCache(localhost:11211))",
    "memcached://localhost:7000/?prefix=": "Guarded(MemcachedCache(localhost:7000))",
    "memcached://a:1,b:2,a:1": "ShardedCache(Guarded(MemcachedCache(a:1)), Guarded(MemcachedCache(b:2)))",
}


@pytest.mark.parametrize(("url", "shown"), GOOD.items())
def test_urls_name_caches_and_no_password_is_shown(url: str, shown: str) -> None:
    with closing(open_cache(url)) as cache:
        assert repr(cache) == shown


BAD = {
    "": "scheme", "localhost:6379": "scheme", "s3cret:6379": "scheme", "http://localhost": "'http'", "redis:": "host",
    "redis://": "host", "redis:///0": "host", "redis://:s3cret@/0": "host", "redis://a b": "host", "redis://a..b": "host",
    "redis://[::1": "read", "redis://localhost:0": "port", "redis://localhost:65536": "port",
    "redis://localhost:s3cret": "port", "redis://localhost/s3cret": "database", "redis://localhost/-1": "database",
    "redis://localhost/0/1": "database", "redis://s3cret@localhost": "password", "redis://user:@localhost": "password",
    "redis://:s3/cret@localhost": "", "redis://:s3?cret@localhost": "", "redis://:s3#cret@localhost": "%23",
    "redis://localhost?prefix=a&prefix=b": "prefix", "redis://localhost?db=3": "prefix",
    "redis://localhost?password=s3cret": "prefix", "redis://localhost?prefix=a%20b": "up to 64",
    f"redis://localhost?prefix={'a' * 65}": "up to 64", "memcached://": "host", "memcached://a,": "host",
    "memcached://:s3cret@a": "without", "memcached://a/0": "databases", "redis://localhost:１２": "port",
    "redis://a,b": "host", f"redis://{'a' * 64}.example": "host", "redis://:s3cret℀@h": "read",
}  # fmt: skip


@pytest.mark.parametrize(("url", "named"), BAD.items(), ids=[url[:40] for url in BAD])
def test_what_is_not_accepted_is_told_with_what_is(url: str, named: str) -> None:
    with pytest.raises(SettingsError) as raised:
        open_cache(url)
    text = str(raised.value)
    assert named in text
    assert ACCEPTED in text
    assert not {"s3", "cret"} & set(text.replace(ACCEPTED, "").replace(":", " ").split())
    assert "cret" not in text
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_redis_server_is_named_by_the_same_urls_for_other_uses() -> None:
    server = redis_server("rediss://user:s3%40cret@redis.example:7000/3?prefix=img:", of="leases")
    assert (server.host, server.port, server.db, server.prefix, server.tls) == (
        "redis.example",
        7000,
        3,
        "img:",
        True,
    )
    assert (server.username, server.password) == ("user", "s3@cret")
    assert redis_server("redis://localhost", of="leases").prefix == "lazypix:"
    assert "s3@cret" not in f"{server!r} {server}"


@pytest.mark.parametrize("url", [*(url for url in BAD if url.startswith("redis")), "memcached://localhost"])
def test_what_names_no_redis_server_is_told_with_its_use(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^The URL of the leases is wrong: ") as raised:
        redis_server(url, of="leases")
    assert str(raised.value).endswith(f"accepted: {ACCEPTED_REDIS}")
    assert "cret" not in str(raised.value)


@given(st.text(max_size=60), st.sampled_from(["", "redis://", "rediss://:p@h", "memcached://", "redis://h?prefix="]))
def test_any_text_is_a_cache_or_an_error_that_says_so(text: str, beginning: str) -> None:
    with suppress(SettingsError):
        open_cache(beginning + text).close()


@pytest.mark.parametrize(("url", "package"), [("redis://a", "redis"), ("memcached://a", "pymemcache")])
def test_a_missing_package_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"lazypix.cache.{url.split(':')[0]}", raising=False)
    with pytest.raises(SettingsError, match=rf"pip install 'lazypix\[{url.split(':')[0]}\]'"):
        open_cache(url)


def test_plain_keys_are_left_as_they_are() -> None:
    assert plain_key("p:", "answer:cat:0123") == "p:answer:cat:0123"
    assert plain_key("", "x" * LONGEST_BYTES) == "x" * LONGEST_BYTES


@given(st.text(max_size=300), st.text(max_size=300))
def test_every_key_is_short_and_plain_and_its_own(one: str, other: str) -> None:
    keys = {plain_key("p:", text) for text in (one, other)}
    assert len(keys) == len({one, other})
    for key in keys:
        assert len(key) <= LONGEST_BYTES
        assert key.isascii()
        assert all("!" <= c <= "~" for c in key)
    assert plain_key("p:", plain_key("", one)) == plain_key("p:", one) or plain_key("", one).startswith("#")


def test_a_key_follows_its_shard_wherever_that_stands_in_the_list() -> None:
    names = ["a:1", "b:1", "c:1"]
    caches = {name: ProcessCache() for name in names}
    keys = [f"key {number}" for number in range(300)]
    for key in keys:
        ShardedCache([(name, caches[name]) for name in names]).set(key, b"1", ttl_s=60)
    counts = [len(caches[name].keys()) for name in names]
    assert sum(counts) == 300
    assert min(counts) > 50
    turned = ShardedCache([(name, caches[name]) for name in reversed(names)])
    assert all(turned.get(key) == b"1" for key in keys)
    fewer = ShardedCache([(name, caches[name]) for name in names[1:]])
    assert sum(fewer.get(key) == b"1" for key in keys) == counts[1] + counts[2]
