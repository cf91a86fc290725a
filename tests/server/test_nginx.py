"""The first seed's nginx configuration in front of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.pictures import encoded, quadrants
from tests.ports import free_port
from tests.server.nginx import get_raw, nginx
from tests.server.running import Server, ask, error_of

# As in ImageServer's document, but for addresses, folders, the size of uploads, and the header that tells what the
# cache did.
CONFIGURATION = """
proxy_cache_path {folder}/cache levels=1:2 keys_zone=imageservice:10m max_size=1g inactive=24h;
log_format imageservice
    '$remote_addr '
    '"$request" $status $bytes_sent '
    '"$http_referer" "$http_user_agent" "$gzip_ratio" '
    '$upstream_addr $upstream_cache_status';
server {{
    listen 127.0.0.1:{port};
    client_max_body_size 80m;
    location / {{
        proxy_pass http://127.0.0.1:{upstream};
    }}
    location /image {{
        proxy_pass http://127.0.0.1:{upstream};
        proxy_cache imageservice;
        proxy_cache_valid 200 1d;
        add_header Cache-Was $upstream_cache_status;
        access_log {folder}/access.log imageservice;
    }}
}}
"""


@pytest.fixture
def front(server: Server, tmp_path: Path) -> Iterator[int]:
    port = free_port()
    with nginx(tmp_path, CONFIGURATION.format(folder=tmp_path, port=port, upstream=server.port), port):
        yield port


def test_the_second_request_is_answered_by_nginx(server: Server, front: int) -> None:
    ident = server.upload(encoded(quadrants()))
    url = f"http://127.0.0.1:{front}/image/{ident}.jpg?width=50&height=20"
    first, second = ask("GET", url), ask("GET", url)
    assert (first.status_code, first.headers["cache-was"]) == (200, "MISS")
    assert (second.status_code, second.headers["cache-was"]) == (200, "HIT")
    assert first.content == second.content


def test_the_documented_address_with_a_raw_less_than_sign_goes_through(server: Server, front: int) -> None:
    ident = server.upload(encoded(quadrants()))
    answer = get_raw(front, f"/image/{ident}.jpg?width=50&height=<50")
    assert answer.status == 200
    assert answer.body[:3] == b"\xff\xd8\xff"


def test_uploads_and_errors_go_through(front: int) -> None:
    base = f"http://127.0.0.1:{front}"
    stored = ask("POST", f"{base}/upload", files={"image": ("a.png", encoded(quadrants()))})
    assert stored.status_code == 201
    missing = ask("GET", f"{base}/image/no-such-image.jpg")
    assert missing.status_code == 404
    assert missing.json()["status"] == "error"


def test_a_large_body_that_is_refused_at_once_is_no_bad_gateway(front: int) -> None:
    """nginx sends all of it, on a connection that is to be closed, and only then looks for the answer."""
    body = bytes(32 * 1024 * 1024)
    url = f"http://127.0.0.1:{front}/upload"
    answer = ask("POST", url, content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert "is not a form" in error_of(answer.content)
