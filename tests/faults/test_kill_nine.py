"""`kill -9` of the whole server, again and again, in the middle of uploads: nothing acknowledged is lost."""

from __future__ import annotations

import hashlib
import io
import random
import threading
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from tests.server.running import Server, begin, kill, stop, wait_until_ready
from tests.waiting import WAIT_S, wait

from lazypix import Library

KILLS = 50
UPLOADERS = 3
LONGEST_LIFE_S = 0.2


def picture(seed: int) -> bytes:
    """A small PNG that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Uploads:
    """Uploads pictures until the server dies under it; keeps what was sent and what was acknowledged."""

    def __init__(self) -> None:
        self.sent: dict[str, str] = {}
        self.acknowledged: dict[str, str] = {}
        self.going = threading.Event()
        self._lock = threading.Lock()
        self._number = 0

    def run(self, server: Server) -> None:
        with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
            while True:
                with self._lock:
                    self._number += 1
                    ident, body = f"picture-{self._number}", picture(self._number)
                    digest = hashlib.sha256(body).hexdigest()
                    self.sent[ident] = digest
                try:
                    answer = client.post("/upload", files={"image": ("p.png", body)}, data={"ident": ident})
                except httpx.TransportError:
                    return
                assert answer.status_code == 201, answer.text
                with self._lock:
                    self.acknowledged[ident] = digest
                self.going.set()


def live_and_die(data: Path, uploads: Uploads, life_s: float) -> None:
    server = begin(data, renderers="1")
    try:
        wait_until_ready(server)
        uploads.going.clear()
        threads = [threading.Thread(target=uploads.run, args=(server,)) for _ in range(UPLOADERS)]
        for thread in threads:
            thread.start()
        wait(uploads.going)
        threading.Event().wait(life_s)  # the random moment
    finally:
        kill(server)
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_fifty_kills_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    moments, uploads, data = random.Random(20), Uploads(), tmp_path / "data"
    for _ in range(KILLS):
        live_and_die(data, uploads, moments.uniform(0, LONGEST_LIFE_S))
    assert len(uploads.acknowledged) > KILLS

    server = begin(data)
    try:
        wait_until_ready(server)
        for ident, digest in uploads.acknowledged.items():
            answer = server.get(f"/image/{ident}.png")
            assert answer.status_code == 200, ident
            assert hashlib.sha256(answer.content).hexdigest() == digest
    finally:
        stop(server)
    check_nothing_else_is_there(data, uploads)


def check_nothing_else_is_there(data: Path, uploads: Uploads) -> None:
    """Whatever is visible was sent and is whole; there is no file without a row, and no unfinished row."""
    with Library.open(data) as library:
        visible = {image.ident: image for image in library.list(limit=100_000)}
        assert uploads.acknowledged.keys() <= visible.keys() <= uploads.sent.keys()
        for ident, image in visible.items():
            assert image.sha256 == uploads.sent[ident]
            assert hashlib.sha256(library.original(ident)).hexdigest() == uploads.sent[ident]
        assert library.catalog.unfinished() == []
        assert {blob.key for blob in library.store.list()} == {f"{ident}/origin.png" for ident in visible}
    assert list((data / "incoming").iterdir()) == []
    assert list((data / "images" / ".tmp").iterdir()) == []
    assert list((data / "images" / ".deleted").iterdir()) == []
