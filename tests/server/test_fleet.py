"""Two servers, each as on a machine of its own, on one S3, one PostgreSQL and one Redis: a fleet by settings alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests import programs
from tests.engine.pictures import jpg, noise
from tests.fleet.machines import machines, shared_settings
from tests.programs import SECRET_KEY, Program
from tests.server.running import ANSWER_S, Server, ask, running
from tests.waiting import until

PICTURE = jpg(noise(400, 300))
LARGE = jpg(noise(2000, 1500))


@pytest.fixture(scope="module")
def fleet(
    seaweedfs: Program, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("fleet")
    with programs.redis(folder) as redis:
        settings = shared_settings(
            seaweedfs, new_database(), shared_cache=f"redis://{redis.address}/0", cache_ttl_s="0"
        )
        with machines(folder, 2, **settings) as (one, two):
            yield one, two, settings


def test_what_one_stores_the_other_serves(fleet: tuple[Server, Server, dict[str, str]]) -> None:
    one, two, _ = fleet
    ident = one.upload(PICTURE)
    assert two.get(f"/image/{ident}.jpg").content == PICTURE
    made = one.get(f"/image/100x80,fit=cover/{ident}.webp")
    until(lambda: "shared" in two.get(f"/image/100x80,fit=cover/{ident}.webp").headers["server-timing"])
    assert two.get(f"/image/100x80,fit=cover/{ident}.webp").content == made.content
    assert (one.get("/readyz").status_code, two.get("/readyz").status_code) == (200, 200)


def test_a_large_original_is_streamed_and_its_parts_too(fleet: tuple[Server, Server, dict[str, str]]) -> None:
    one, two, _ = fleet
    assert len(LARGE) > 1_500_000
    ident = one.upload(LARGE)
    whole = two.get(f"/image/{ident}.jpg")
    assert (whole.status_code, whole.content) == (200, LARGE)
    part = two.get(f"/image/{ident}.jpg", range="bytes=1200000-1300000")
    assert (part.status_code, part.content) == (206, LARGE[1_200_000:1_300_001])
    assert two.get(f"/image/{ident}.jpg", if_none_match=whole.headers["etag"]).status_code == 304


def test_a_deletion_on_one_is_one_on_the_other(fleet: tuple[Server, Server, dict[str, str]]) -> None:
    one, two, _ = fleet
    ident = one.upload(PICTURE)
    for server in (one, two):
        assert server.get(f"/image/50x/{ident}.jpg").status_code == 200
    assert ask("DELETE", f"{two.url}/image/{ident}").status_code == 200
    for server in (one, two):
        assert server.get(f"/image/50x/{ident}.jpg").status_code == 404
        assert server.get(f"/image/{ident}.jpg").status_code == 404


def test_a_redirect_leads_to_the_stored_bytes(fleet: tuple[Server, Server, dict[str, str]], tmp_path: Path) -> None:
    one, _, settings = fleet
    ident = one.upload(PICTURE)
    assert one.get(f"/image/70x/{ident}.jpg").status_code == 200
    with running(tmp_path / "three", **settings, stored_images="redirect") as three:
        answer = three.get(f"/image/{ident}.jpg")
        assert answer.status_code == 302
        with httpx.stream("GET", answer.headers["location"], timeout=ANSWER_S) as followed:
            assert (followed.status_code, followed.read()) == (200, PICTURE)
            assert followed.headers["content-type"] == "image/jpeg"
        until(lambda: three.get(f"/image/70x/{ident}.jpg").status_code == 302)
    assert SECRET_KEY not in three.log.read_text()
