"""Images that hang or kill a renderer, in the running server."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.engine.pictures import encoded, jpg, noise, quadrants
from tests.server.running import Server, members, running, until

SLOW = "2000x2000,fit=fill,lossless=true"  # as AVIF, a few seconds of work


def test_an_image_over_the_deadline_is_422_and_quarantined_after_two_times(tmp_path: Path) -> None:
    with running(tmp_path / "data", render_deadline_s="0.7", renderers="1") as server:
        heavy = server.upload(encoded(noise(400, 300)), ident="heavy")
        good = server.upload(jpg(quadrants()), ident="good")
        for _ in range(2):
            late = server.get(f"/image/{SLOW}/{heavy}.avif")
            assert late.status_code == 422, late.text
            assert late.headers["lazypix-error"] == "render_timeout"
            assert "0.7 seconds" in late.json()["content"]
            assert server.get(f"/image/20x/{good}.jpg?").status_code == 200
        before = renderers(server)
        refused = server.get(f"/image/21x/{heavy}.jpg")
        assert (refused.status_code, refused.headers["lazypix-error"]) == (422, "quarantined")
        assert renderers(server) == before
        assert server.get(f"/image/{heavy}.png").status_code == 200  # the original itself needs no renderer
        assert server.get(f"/image/22x/{good}.jpg").status_code == 200


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
    with running(tmp_path / "data") as server:
        ident = server.upload(jpg(quadrants(300, 200)))
        for size in (50, 60):
            victims = renderers(server)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            answer = server.get(f"/image/{size}x/{ident}.jpg")
            assert answer.status_code in (200, 422), answer.text
            assert server.get(f"/image/{size + 1}x/{ident}.jpg").status_code == 200
            until(lambda: _replaced(server, victims), 20, lambda: f"{renderers(server)}")  # noqa: B023
        assert server.get(f"/info/{ident}").status_code == 200


def _replaced(server: Server, victims: list[int]) -> bool:
    now = renderers(server)
    return len(now) == 2 and not set(now) & set(victims)


def renderers(server: Server) -> list[int]:
    """The pids of the server's renderer processes."""
    return sorted(pid for pid, command in members(server.pid).items() if "spawn_main" in command)
