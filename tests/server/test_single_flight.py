"""However many ask for a new variant at once, it is rendered once."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.server.crowd import crowd
from tests.server.running import ANSWER_S, Server, running, stored_files
from tests.waiting import until

CROWD = 200


def photograph(width_px: int = 1600, height_px: int = 1200) -> bytes:
    noise = np.random.default_rng(7).integers(0, 255, (height_px, width_px, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=90)
    return file.getvalue()


def renders(server: Server) -> int:
    return server.log.read_text().count(" rendered ")


@pytest.mark.parametrize("workers", [1, 2])
def test_two_hundred_requests_for_a_new_variant_are_one_render(tmp_path: Path, workers: int) -> None:
    with running(tmp_path / "data", "--workers", str(workers), log_level="debug") as server:
        ident = server.upload(photograph())
        assert renders(server) == 0
        for number, target in enumerate(
            (f"/image/640x480,fit=cover/{ident}.webp", f"/image/{ident}.jpg?width=99&height=98")
        ):
            answers = crowd([server], target, CROWD)
            assert [answer.status for answer in answers] == [200] * CROWD
            assert len({answer.body for answer in answers}) == 1
            assert renders(server) == number + 1


def test_beyond_the_queue_requests_for_other_variants_get_503_and_stored_ones_are_served(tmp_path: Path) -> None:
    with running(tmp_path / "data", queue="1", renderers="1") as server:
        ident = server.upload(photograph(3000, 2000))
        stored = server.get(f"/image/40x/{ident}.jpg")
        assert stored.status_code == 200
        until(lambda: f"images/{ident}/40x.jpg" in stored_files(server.data))

        async def many() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=server.url, timeout=ANSWER_S) as client:
                slow = [client.get(f"/image/{1200 + n}x/{ident}.avif") for n in range(12)]
                return list(await asyncio.gather(*slow, client.get(f"/image/40x/{ident}.jpg")))

        *answers, hit = asyncio.run(many())
        assert hit.status_code == 200
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert len(refused) < len(answers)
        for answer in refused:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["status"] == "error"
        assert server.get(f"/image/1211x/{ident}.avif").status_code == 200
