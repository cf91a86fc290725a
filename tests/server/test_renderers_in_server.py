"""Images that hang or kill a renderer, in the running server."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.engine.pictures import encoded, jpg, noise, quadrants
from tests.server.running import START_S, Server, members, running
from tests.waiting import WAIT_S, until

SLOW = "5000x5000,fit=fill,lossless=true"  # as AVIF, half a minute of work
WIDTHS = itertools.count(50)
PATIENT = {"request_deadline_s": "60"}  # a new renderer may have to start first


def test_an_image_over_the_deadline_is_422_and_quarantined_after_two_times(tmp_path: Path) -> None:
    with running(tmp_path / "data", render_deadline_s="120") as server:
        server.upload(encoded(noise(4000, 3000), "avif", quality=100, speed=10), ident="heavy")  # seconds to decode
        server.upload(jpg(quadrants()), ident="good")
    with running(tmp_path / "data", render_deadline_s="1", renderers="1", **PATIENT) as server:
        for strikes, width in enumerate((20, 30), start=1):
            late = server.get(f"/image/{width}x/heavy.jpg")
            assert late.status_code == 422, late.text
            assert late.headers["lazypix-error"] == "render_timeout"
            assert "longer than 1 seconds" in late.json()["content"]
            until(lambda: _strikes(server, "heavy") == strikes, WAIT_S)  # noqa: B023
            until(lambda: _is_made(server, "good"), WAIT_S)
        until(lambda: _quarantined(server, "heavy"))
        until(lambda: _is_made(server, "good"), WAIT_S)
        before = renderers(server)
        assert _quarantined(server, "heavy")
        assert renderers(server) == before
        assert server.get("/image/heavy.avif").status_code == 200  # the original itself needs no renderer
        until(lambda: _is_made(server, "good"))


def _is_made(server: Server, ident: str) -> bool:
    """Whether a variant that nobody has asked for yet is made in time; a renderer that stands still has no time.

    In no other way may it fail.
    """
    answer = server.get(f"/image/{next(WIDTHS)}x/{ident}.jpg")
    if (answer.status_code, answer.headers.get("lazypix-error")) == (422, "render_timeout"):
        return False
    if answer.status_code == 503:
        return False
    assert answer.status_code == 200, answer.text
    return True


def _strikes(server: Server, ident: str) -> int:
    with closing(sqlite3.connect(f"file:{server.data / 'catalog.sqlite'}?mode=ro", uri=True)) as catalog:
        found: tuple[int] = catalog.execute("SELECT strikes FROM images WHERE ident = ?", (ident,)).fetchone()
        return found[0]


def _quarantined(server: Server, ident: str) -> bool:
    answer = server.get(f"/image/40x/{ident}.jpg")
    assert answer.status_code == 422, answer.text
    return answer.headers["lazypix-error"] == "quarantined"


def test_a_variant_over_the_deadline_is_422_and_costs_its_image_nothing(tmp_path: Path) -> None:
    settings = {"render_deadline_s": "4", "render_memory_bytes": "0", "renderers": "1", **PATIENT}
    with running(tmp_path / "data", **settings) as server:
        good = server.upload(encoded(noise(400, 300)))
        for _ in range(3):
            late = server.get(f"/image/{SLOW}/{good}.avif")
            assert (late.status_code, late.headers["lazypix-error"]) == (422, "render_timeout"), late.text
        until(lambda: _is_made(server, good), WAIT_S)
        assert _strikes(server, good) == 0


def test_an_image_that_needs_too_much_memory_fails_alone(tmp_path: Path) -> None:
    with running(
        tmp_path / "data", render_memory_bytes=str(250 * 1024 * 1024), render_deadline_s="60", renderers="1"
    ) as server:
        large = server.upload(jpg(quadrants(200, 200)), ident="large")
        # Enlarged, and held in memory as a whole to be turned.
        eaten = server.get(f"/image/7000x7000,fit=fill,rotate=90/{large}.png")
        assert eaten.status_code == 422, eaten.text
        assert eaten.headers["lazypix-error"] == "renderer_lost"
        assert server.get(f"/image/30x/{large}.jpg").status_code == 200


def test_a_renderer_killed_from_outside_costs_nobody_anything(tmp_path: Path) -> None:
    with running(tmp_path / "data", **PATIENT) as server:
        ident = server.upload(jpg(quadrants(300, 200)))
        for size in (50, 60):
            victims = renderers(server)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            answer = server.get(f"/image/{size}x/{ident}.jpg")
            assert answer.status_code == 200, answer.text
            assert server.get(f"/image/{size + 1}x/{ident}.jpg").status_code == 200
            until(lambda: _replaced(server, victims), START_S, lambda: f"{renderers(server)}")  # noqa: B023
        assert server.get(f"/info/{ident}").status_code == 200


def _replaced(server: Server, victims: list[int]) -> bool:
    now = renderers(server)
    return len(now) == 2 and not set(now) & set(victims)


def renderers(server: Server) -> list[int]:
    """The pids of the server's renderer processes."""
    return sorted(pid for pid, command in members(server.pid).items() if "spawn_main" in command)
