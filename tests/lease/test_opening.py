"""Addresses of leases: what is accepted, what is taken without one, and that no password is seen anywhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests import programs
from tests.engine.pictures import jpg, quadrants
from tests.ports import free_port
from tests.waiting import WAIT_S, until

from lazypix.catalog import Catalog
from lazypix.composition import open_library
from lazypix.engine.idle import IdleEngine
from lazypix.errors import SettingsError
from lazypix.lease import LeaseFailed, Leases
from lazypix.lease.opening import ACCEPTED, open_leases
from lazypix.settings import load, shown


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    with closing(Catalog.sqlite(tmp_path_factory.mktemp("catalog") / "catalog.sqlite")) as opened:
        yield opened


GOOD = {
    "redis://localhost": "RedisLeases(localhost:6379/0)",
    "redis://:s3%40cret%2F@[::1]:7000/3?prefix=img:": "RedisLeases(::1:7000/3)",
    "rediss://user:s3cret@cache.example": "RedisLeases(cache.example:6379/0)",
    "memcached://localhost:7000/?prefix=": "MemcachedLeases(localhost:7000)",
    "memcached://a:1,b:2,a:1": "ShardedLeases(MemcachedLeases(a:1), MemcachedLeases(b:2))",
}


@pytest.mark.parametrize(("address", "named"), GOOD.items())
def test_addresses_name_leases_and_no_password_is_shown(address: str, named: str, catalog: Catalog) -> None:
    leases = open_leases(address, catalog)
    assert leases is not None
    with closing(leases):
        assert repr(leases) == named


@pytest.mark.parametrize("address", ["", "catalogue", "redis://", "redis://:s3cret@", "http://localhost", "memcached://a/0", "NONE"])  # fmt: skip
def test_what_is_not_accepted_is_told_with_what_is(address: str, catalog: Catalog) -> None:
    with pytest.raises(SettingsError, match=r"^The URL of the leases is wrong: ") as raised:
        open_leases(address, catalog)
    assert str(raised.value).endswith(f"accepted: {ACCEPTED}")
    assert ACCEPTED.startswith("catalog, none, redis://")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(("url", "package"), [("redis://a", "redis"), ("memcached://a", "pymemcache")])
def test_a_missing_package_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, catalog: Catalog
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for room in ("cache", "lease"):
        monkeypatch.delitem(sys.modules, f"lazypix.{room}.{url.split(':')[0]}", raising=False)
    with pytest.raises(SettingsError, match=rf"pip install 'lazypix\[{url.split(':')[0]}\]'"):
        open_leases(url, catalog)


def test_without_an_address_only_a_catalog_of_many_machines_gives_leases(
    catalog: Catalog, new_database: Callable[[], str]
) -> None:
    assert open_leases(None, catalog) is None
    assert open_leases("none", catalog) is None
    assert "CatalogLeases" in repr(open_leases("catalog", catalog))
    with closing(Catalog.open(new_database())) as postgres:
        assert "CatalogLeases" in repr(open_leases(None, postgres))
        assert open_leases("none", postgres) is None


def test_several_servers_have_their_own_keys_and_their_own_outages(tmp_path: Path, catalog: Catalog) -> None:
    with programs.memcached(tmp_path) as one, programs.memcached(tmp_path) as two:
        leases = open_leases(f"memcached://{one.address},{two.address}", catalog, timeout_s=20)
        assert leases is not None
        with closing(leases):
            keys = [f"key {number}" for number in range(40)]
            assert None not in [leases.take(key, ttl_s=60) for key in keys]
            two.kill()
            told = [_asked(leases, key) for key in keys]
            assert set(told) == {"taken", "away"}, "the keys of the living one have their leases still"
            assert told == [_asked(leases, key) for key in keys]


def _asked(leases: Leases, key: str) -> str:
    try:
        return "given" if leases.take(key, ttl_s=60) else "taken"
    except LeaseFailed:
        return "away"


def test_settings_open_leases_and_close_them(tmp_path: Path) -> None:
    with programs.redis(tmp_path) as redis:
        settings = load({"data": tmp_path / "data", "leases": f"redis://{redis.address}/0", "lease_s": 2}, {})
        with open_library(settings, IdleEngine()) as library:
            assert "RedisLeases" in repr(library._holder)
    with open_library(load({"data": tmp_path / "data"}, {}), IdleEngine()) as library:
        assert library._holder is None


def test_a_wrong_address_is_told_when_the_library_is_opened(tmp_path: Path) -> None:
    settings = load({"data": tmp_path / "data", "leases": "redis://:s3cret@"}, {})
    with pytest.raises(SettingsError, match="leases is wrong") as raised:
        open_library(settings, IdleEngine())
    assert "s3cret" not in str(raised.value) + repr(settings) + str(shown(settings))


@pytest.mark.parametrize("lease_s", ["0", "0.5", "3601", "soon"])
def test_times_that_make_no_sense_are_refused(lease_s: str) -> None:
    with pytest.raises(SettingsError, match="lease_s"):
        load({}, {"LAZYPIX_LEASE_S": lease_s})


def test_work_goes_on_without_the_server_of_leases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    settings = load({"data": tmp_path / "data", "leases": f"redis://127.0.0.1:{port}/0"}, {})
    with caplog.at_level(logging.WARNING, "lazypix"), open_library(settings) as library:
        library.add(jpg(quadrants()), ident="cat")
        for width in (20, 30, 40):
            library.variant("cat", f"{width}x")
        assert [(v.stem, v.fence) for v in library.variants("cat")] == [("20x", 0), ("30x", 0), ("40x", 0)]
        assert len([r for r in caplog.records if "going on without it" in r.message]) == 1
        with programs.redis(tmp_path, port=port):

            def leased() -> bool:
                library.shelf.remove([("cat", variant) for variant in library.variants("cat")])
                library.variant("cat", "50x")
                return any(variant.fence > 0 for variant in library.variants("cat"))

            until(leased, WAIT_S)
