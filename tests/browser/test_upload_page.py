"""The page of the documentation in a browser: it uploads with a ticket, from another origin, and shows the image."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import FilePayload, expect, sync_playwright
from tests.browser.test_django_page import FLAGS, PATIENCE_MS
from tests.engine.pictures import jpg, quadrants
from tests.programs import ROOT, find
from tests.server.running import ANSWER_S, running

KEY = "a-key-of-the-application"


@contextmanager
def application(images: str) -> Iterator[str]:
    """An application that serves the page, and has tickets signed; return its address, of another origin."""
    text = (ROOT / "docs" / "how-to" / "browser-uploads.md").read_text(encoding="utf-8")
    found = re.search(r"```html\n(.*?)```", text, re.DOTALL)
    assert found is not None
    page = found[1].replace("https://img.example", images)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("text/html", page)

        def do_POST(self) -> None:
            headers = {"Authorization": f"Bearer {KEY}"}
            signed = httpx.post(f"{images}/tickets", headers=headers, data={"formats": "jpg"}, timeout=ANSWER_S)
            content = signed.json()["content"]
            content["upload"]["url"] = images + content["upload"]["url"]  # the server has no base_url
            self._answer("application/json", json.dumps(content))

        def _answer(self, kind: str, body: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def images(tmp_path: Path) -> Iterator[str]:
    """The address of a server that signs tickets."""
    with running(tmp_path / "data", api_keys=KEY, ticket_keys="t1:a-secret-of-many-characters") as server:
        yield server.url


def test_a_picture_is_uploaded_by_a_page_of_another_origin_and_shown(images: str) -> None:
    executable = find("chromium", "/usr/bin")
    with application(images) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS, timeout=PATIENCE_MS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        for name, kind, told in (
            ("me.png", "image/png", re.compile("This is a jpg image|named .png")),
            ("me.jpg", "image/jpeg", re.compile("^Stored$")),
        ):
            picture = FilePayload(name=name, mimeType=kind, buffer=jpg(quadrants(300, 200)))
            page.locator("input").set_input_files(picture)
            expect(page.locator("p")).to_have_text(told, timeout=PATIENCE_MS)
        page.wait_for_function("document.querySelector('img').naturalWidth === 200")
        browser.close()
