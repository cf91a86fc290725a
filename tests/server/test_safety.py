"""Safe by default: nothing is reachable from outside, and nothing is written, without somebody's decision."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.engine.pictures import encoded, quadrants
from tests.forked import run_module
from tests.server.running import START_S, Server, clean_environment, nothing_stored, running
from tests.waiting import until

KEY = "correct-horse-battery-staple"


def serve(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `lazypix serve`, which is expected to refuse."""
    done = run_module("lazypix", ["serve", *arguments], cwd=tmp_path, env=clean_environment(settings))
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_listening_beyond_loopback_is_refused_without_keys_and_a_choice_of_urls(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        refused = serve(tmp_path, "--host", host, "--port", "0")
        assert refused.returncode == 2
        assert "api_keys" in refused.stderr
        assert "urls" in refused.stderr
        assert "Traceback" not in refused.stderr
    half = serve(tmp_path, "--host", "0.0.0.0", "--port", "0", urls="open")
    assert half.returncode == 2
    assert "needs api_keys" in half.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_store_that_cannot_be_redirected_to_is_refused_at_the_start(tmp_path: Path, workers: str) -> None:
    refused = serve(tmp_path, "--data", "data", "--port", "0", "--workers", workers, stored_images="redirect")
    assert refused.returncode == 2
    assert "stored_images='redirect' needs a store" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_catalog_that_cannot_be_opened_is_a_clear_error(tmp_path: Path, workers: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "catalog.sqlite").write_bytes(b"no database" * 1000)
    refused = serve(tmp_path, "--data", "data", "--workers", workers)
    assert refused.returncode == 1
    assert "catalog" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = serve(tmp_path, "--port", str(taken.getsockname()[1]))
    assert refused.returncode == 2
    assert "Cannot listen on 127.0.0.1" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""  # nobody is told to go there


def test_a_free_port_is_told(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "lazypix", "serve", "--port", "0"],
        cwd=tmp_path, env=clean_environment({}), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            told = re.search(r"http://127\.0\.0\.1:[1-9][0-9]*", process.stdout.readline())
            assert told is not None
            until(lambda: _answers(f"{told[0]}/healthz"), START_S)
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=20).status_code == 200
    except httpx.TransportError:
        return False


def test_writes_need_a_key_and_reads_do_not(tmp_path: Path) -> None:
    with running(tmp_path / "data", api_keys=f"another-long-enough-key,{KEY}") as server:
        with server.client() as client:
            form = {"image": ("a.png", encoded(quadrants()))}
            writes = [
                ("POST", "/upload"),
                ("POST", "/image/a.jpg"),
                ("POST", "/resize/a.jpg"),
                ("POST", "/sync/a.jpg"),
            ]
            for method, path in [*writes, ("DELETE", "/image/a")]:
                for authorization in ("", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer"):
                    headers = {"Authorization": authorization} if authorization else {}
                    refused = client.request(method, path, headers=headers, files=form)
                    assert refused.status_code == 401, (method, path, authorization)
                    assert refused.headers["www-authenticate"].startswith("Bearer")
                    assert KEY not in refused.text
            taken = client.post("/upload", headers={"Authorization": f"Bearer {KEY}"}, files=form)
            assert taken.status_code == 201
            ident = taken.json()["content"]["ident"]
            assert client.get(f"/image/20x/{ident}.webp").status_code == 200
            assert client.get(f"/info/{ident}").status_code == 200
            gone = client.delete(f"/image/{ident}", headers={"Authorization": f"bearer {KEY}"})
            assert gone.status_code == 200
        assert KEY not in server.log.read_text()


def test_pages_of_other_sites_cannot_write_to_a_server_without_keys(server: Server) -> None:
    ident = server.upload(encoded(quadrants()))
    form = {"image": ("a.png", encoded(quadrants()))}
    writes = [("POST", "/upload"), ("POST", f"/image/{ident}.jpg"), ("DELETE", f"/image/{ident}")]
    with server.client() as client, nothing_stored(server.data):
        for method, path in writes:
            for origin in ("https://elsewhere.example", "null", f"http://127.0.0.1:{server.port + 1}", ""):
                refused = client.request(method, path, headers={"Origin": origin}, files=form)
                assert (refused.status_code, refused.headers["lazypix-error"]) == (403, "forbidden"), (method, origin)
    with server.client() as client:
        assert client.post("/upload", headers={"Origin": server.url}, files=form).status_code == 201
        seen = client.get(f"/image/20x/{ident}.png", headers={"Origin": "https://elsewhere.example"})
        assert seen.status_code == 200
        assert client.delete(f"/image/{ident}").status_code == 200


def test_a_name_that_was_made_to_point_here_does_not_make_a_page_ours(server: Server) -> None:
    form = {"image": ("a.png", encoded(quadrants()))}
    rebound = {"Host": f"rebound.example:{server.port}", "Origin": f"http://rebound.example:{server.port}"}
    with server.client() as client, nothing_stored(server.data):
        assert client.post("/upload", headers=rebound, files=form).status_code == 403


def test_pages_of_the_configured_address_may_write(tmp_path: Path) -> None:
    form = {"image": ("a.png", encoded(quadrants()))}
    with running(tmp_path / "data", base_url="https://img.example/media") as server, server.client() as client:
        for origin, status in (("https://img.example", 201), ("http://img.example", 403), ("http://[", 403)):
            assert client.post("/upload", headers={"Origin": origin}, files=form).status_code == status


def test_pages_of_other_sites_may_write_with_a_key(tmp_path: Path) -> None:
    headers = {"Origin": "https://elsewhere.example", "Authorization": f"Bearer {KEY}"}
    with running(tmp_path / "data", api_keys=KEY) as server, server.client() as client:
        taken = client.post("/upload", headers=headers, files={"image": encoded(quadrants())})
        assert taken.status_code == 201
        assert taken.headers["access-control-allow-origin"] == "*"


def test_answers_cannot_run_as_pages_of_this_origin(server: Server) -> None:
    ident = server.upload(encoded(quadrants()))
    for target in (f"/image/{ident}.png", f"/image/10x/{ident}.jpg", "/image/none.jpg", "/nowhere", f"/info/{ident}"):
        headers = server.get(target).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]
