"""A full queue: what needs a renderer is refused with the time to come back, everything else is answered."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import httpx
import pytest
from tests.engine.pictures import jpg, noise, quadrants
from tests.server.running import Server, children, running, stored_files
from tests.waiting import WAIT_S, until

PICTURE = jpg(quadrants(4000, 3000))
SMALL = jpg(quadrants(300, 200))
LARGE = jpg(noise(1200, 900))
TINY = {"queue": "4", "renderers": "2", "render_deadline_s": "60", "request_deadline_s": "60", "cache_ttl_s": "600"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a tiny queue and two renderers, which both have been started."""
    with running(tmp_path_factory.mktemp("pressure") / "data", **TINY) as started:
        started.upload(PICTURE, ident="heavy")
        started.upload(SMALL, ident="cat")
        started.upload(LARGE, ident="large")
        assert len(LARGE) > 1024 * 1024
        for width in (60, 61):
            assert started.get(f"/image/{width}x/cat.jpg").status_code == 200
        stored = {f"images/cat/{width}x.jpg" for width in (60, 61)}
        until(lambda: stored <= stored_files(started.data))
        yield started


@contextmanager
def renderers_stopped(server: Server) -> Iterator[None]:
    """Stop all renderers, so that nothing that needs one ends; let them go on at the end."""
    pids = children(server.pid)
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def fill(
    server: Server, askers: ThreadPoolExecutor, pattern: str
) -> tuple[dict[str, Future[httpx.Response]], httpx.Response]:
    """Ask for ever new variants until one is refused; return all that were asked for by target, and a refusal."""
    asked: dict[str, Future[httpx.Response]] = {}
    while not (refused := [each for each in asked.values() if each.done() and each.result().status_code == 503]):
        target = pattern.format(20 + len(asked))
        asked[target] = askers.submit(server.get, target)
        wait([asked[target]], timeout=0.1)
        if len(waiting := [each for each in asked.values() if not each.done()]) > 20:  # more than are let in
            wait(waiting, timeout=WAIT_S, return_when=FIRST_COMPLETED)
        assert len(asked) < 60
    return asked, refused[0].result()


def check_refusal(answer: httpx.Response, text: str) -> None:
    assert (answer.status_code, answer.headers["lazypix-error"]) == (503, "busy")
    assert answer.json()["status"] == "error"
    assert text in answer.json()["content"]
    assert 1 <= int(answer.headers["retry-after"]) <= 32
    assert answer.headers["cache-control"] == "no-store"


def test_beyond_the_queue_all_that_is_there_is_answered_and_joining_is_possible(server: Server) -> None:
    stored = server.get("/image/60x/cat.jpg")
    with ThreadPoolExecutor(70) as askers:
        with renderers_stopped(server):
            asked, refused = fill(server, askers, "/image/{}x/cat.jpg")
            check_refusal(refused, "4 images are being made")
            until(lambda: sum(not each.done() for each in asked.values()) == 4)
            waiting = {target: each for target, each in asked.items() if not each.done()}
            for target, timing in (
                ("/image/60x/cat.jpg", "cache;desc=hit"),
                ("/image/width=61/cat.jpg", "store;desc=hit"),
                ("/image/cat.jpg", "store;desc=original"),
                ("/image/large.jpg", "store;desc=original"),
            ):
                answer = httpx.get(server.url + target, timeout=WAIT_S)
                assert (answer.status_code, answer.headers["server-timing"]) == (200, timing), target
            unchanged = {"If-None-Match": stored.headers["etag"]}
            assert server.get("/image/width=60/cat.jpg", **unchanged).status_code == 304
            assert server.get("/info/cat").status_code == server.get("/readyz").status_code == 200
            joined = [askers.submit(server.get, target) for target in waiting]
            assert not wait(joined, timeout=0.3).done, "they wait with those who asked first"
        assert {answer.result().status_code for answer in (*waiting.values(), *joined)} == {200}
    assert server.get("/image/99x/cat.jpg").status_code == 200, "and afterwards there is room again"


def test_heavy_work_holds_up_neither_small_work_nor_uploads(server: Server) -> None:
    with ThreadPoolExecutor(70) as askers:
        for turn in range(5):  # we may have stood still for as long as all heavy ones take
            asked, refused = fill(server, askers, f"/image/40{{}}x,quality={50 + turn}/heavy.avif")
            check_refusal(refused, "3 heavy images are being made")
            assert server.get(f"/image/7{turn}x/cat.jpg").status_code == 200
            assert server.upload(SMALL, ident=f"new{turn}") == f"new{turn}"
            if not all(answer.done() for answer in asked.values()):
                break
        else:
            pytest.fail("small images and uploads were done only when no heavy work was left")
        made = [answer.result() for answer in asked.values() if answer.result().status_code == 200]
        assert made
        for answer in made:
            assert re.fullmatch(r"wait;dur=[\d.]+, render;dur=[\d.]+", answer.headers["server-timing"])


def test_seconds_of_work_are_bounded_too(server: Server) -> None:
    with running(server.data.parent / "short", **TINY | {"queue": "256", "queue_s": "1.5"}) as short:
        short.upload(PICTURE, ident="heavy")
        with ThreadPoolExecutor(70) as askers:
            asked, refused = fill(short, askers, "/image/40{}x,quality=50/heavy.avif")
            check_refusal(refused, "The renderers have heavy work for")
            assert 200 in {answer.result().status_code for answer in asked.values()}
