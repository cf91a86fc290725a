"""API keys of the catalog at a real server: scopes, quotas, revocation; and never a secret in what can be read."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.engine.pictures import encoded, quadrants
from tests.forked import run_module
from tests.server.running import Server, clean_environment, error_of, nothing_stored, running
from tests.waiting import until

from lazypix.catalog import Catalog
from lazypix.catalog.key_rows import KeyRecord, Quotas
from lazypix.server.access import REMEMBERED_S

PICTURE = encoded(quadrants(12, 8))
SETTING_KEY = "a-key-of-the-settings"


def lazypix(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["keys", arguments[0], "--data", str(data), *arguments[1:]]
    done = run_module("lazypix", words, cwd=data.parent, env=clean_environment({}))
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Key:
    """A key of the catalog in the folder."""

    def __init__(self, data: Path, *scopes: str, **quotas: int) -> None:
        data.mkdir(exist_ok=True)
        with closing(Catalog.sqlite(data / "catalog.sqlite")) as catalog:
            record, key = catalog.keys.make("key", scopes or ("upload",), Quotas(**quotas))
        self.id, self.text = record.id, key.text
        self.headers = {"Authorization": f"Bearer {self.text}"}


def record_of(data: Path, key: Key) -> KeyRecord:
    with closing(Catalog.sqlite(data / "catalog.sqlite")) as catalog:
        return catalog.keys.get(key.id)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("keys") / "data", api_keys=SETTING_KEY) as started:
        yield started


def upload(client: httpx.Client, headers: Mapping[str, str] | Mapping[bytes, bytes], **fields: str) -> httpx.Response:
    return client.post("/upload", headers=headers, files={"image": ("a.png", PICTURE)}, data=fields)


def test_a_key_does_what_its_scopes_say_and_others_are_named(server: Server) -> None:
    adds, removes, all_ = (Key(server.data, scope) for scope in ("upload", "delete", "admin"))
    with server.client() as client:
        ident = upload(client, adds.headers).json()["content"]["ident"]
        requests = {
            "upload": ("POST", f"/resize/{ident}.jpg"),
            "admin": ("GET", "/images"),
            "delete": ("DELETE", f"/variants/{ident}"),
        }
        for key, may in ((adds, {"upload"}), (removes, {"delete"}), (all_, {"upload", "delete", "admin"})):
            for scope, (method, target) in requests.items():
                answer = client.request(method, target, headers=key.headers)
                assert answer.status_code == (200 if scope in may else 403), (may, scope, answer.text)
                if scope not in may:
                    assert f"needs an API key with the scope {scope}" in error_of(answer.content)
        assert client.get("/images", headers={"Authorization": f"Bearer {SETTING_KEY}"}).status_code == 200
        assert client.delete(f"/image/{ident}", headers=removes.headers).status_code == 200


def test_wrong_keys_are_refused_and_no_secret_is_told(server: Server) -> None:
    key, other = Key(server.data), Key(server.data)
    wrong = key.text[:-7] + other.text[-7:]
    mixed = key.text.replace(key.id, other.id)
    with server.client() as client, nothing_stored(server.data):
        for text in (wrong, mixed, key.text[:-1], key.text + "x", key.text.upper(), "lpx__", "lpx_" + "\xe9" * 9):
            answer = upload(client, {b"Authorization": f"Bearer {text}".encode("latin-1")})
            assert answer.status_code == 401, text
            assert text not in answer.text
        assert upload(client, {"Authorization": f"Basic {key.text}"}).status_code == 401
    with server.client() as client:
        assert upload(client, key.headers).status_code == 201
    secret = key.text.split("_", 2)[2]
    assert secret not in server.log.read_text()
    assert secret.encode() not in b"".join(file.read_bytes() for file in server.data.glob("catalog*"))


def test_quotas_are_kept_and_freed_by_deletion(server: Server) -> None:
    key = Key(server.data, "upload", "delete", max_images=2, max_bytes=1024)
    with server.client() as client:
        first, second = (upload(client, key.headers).json()["content"]["ident"] for _ in range(2))
        with nothing_stored(server.data):
            refused = upload(client, key.headers)
            assert (refused.status_code, refused.headers["lazypix-error"]) == (403, "quota_exceeded")
            assert error_of(refused.content) == f"The API key {key.id} may have 2 images, and has 2; delete some"
        assert client.delete(f"/image/{first}", headers=key.headers).status_code == 200
        assert client.delete(f"/image/{second}", headers=key.headers).status_code == 200
        large = encoded(quadrants(300, 300), "tiff")
        over = client.post("/upload", headers=key.headers, files={"image": large})
        assert over.status_code == 403
        assert "1024 bytes together, and has 0; this one has" in error_of(over.content)
        assert upload(client, key.headers).status_code == 201
        broken = client.post("/upload", headers=key.headers, files={"image": PICTURE[:-20]})
        assert broken.status_code == 422
        told = client.get("/keys/self", headers=key.headers).json()["content"]
    assert (told["images"], told["bytes"], told["max_images"], told["max_bytes"]) == (1, len(PICTURE), 2, 1024)
    assert "hash" not in told
    record = record_of(server.data, key)
    assert (record.images, record.bytes) == (1, len(PICTURE))


def test_an_upload_in_pieces_counts_for_the_key_that_began_it(server: Server) -> None:
    key, other = Key(server.data, max_images=1), Key(server.data)
    headers = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    with server.client() as client:
        begun = client.post("/files/", headers=headers | key.headers | {"Upload-Length": str(len(PICTURE))})
        assert begun.status_code == 201, begun.text
        at, piece = begun.headers["location"], headers | {"Upload-Offset": "0"}
        assert client.patch(at, headers=piece | other.headers, content=PICTURE).status_code in (403, 404)
        assert client.patch(at, headers=piece | key.headers, content=PICTURE).status_code == 204
        assert upload(client, key.headers).status_code == 403
    record = record_of(server.data, key)
    assert (record.images, record.bytes) == (1, len(PICTURE))


def test_who_asks_for_a_key_needs_one(server: Server) -> None:
    with server.client() as client:
        assert client.get("/keys/self").status_code == 401
        told = client.get("/keys/self", headers={"Authorization": f"Bearer {SETTING_KEY}"})
        assert told.json()["content"]["scopes"] == ["upload", "delete", "admin"]


def test_requests_are_limited_by_the_minute(server: Server) -> None:
    key = Key(server.data, per_minute=3)
    with server.client() as client:
        answers = [upload(client, key.headers) for _ in range(7)]  # a minute may end once meanwhile
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.status_code for answer in answers[:3]} == {201}
    assert 1 <= int(refused[0].headers["retry-after"]) <= 60
    assert refused[0].headers["lazypix-error"] == "too_many_requests"


def test_a_revoked_key_uploads_nothing_from_that_moment_on(server: Server) -> None:
    key = Key(server.data, "admin")
    with server.client() as client:
        assert upload(client, key.headers).status_code == 201
        done = lazypix(server.data, "revoke", key.id)
        assert (done.returncode, done.stdout) == (0, f"revoked {key.id} (key)\n")
        with nothing_stored(server.data):
            assert upload(client, key.headers).status_code == 401
        # What it may read is remembered for a while.
        refused = lambda: client.get("/images", headers=key.headers).status_code == 401  # noqa: E731
        until(refused, REMEMBERED_S + 20)


def test_a_first_key_closes_a_server_that_needed_none_and_revoking_it_does_not_open_it(tmp_path: Path) -> None:
    with running(tmp_path / "data", keys_required="false") as server, server.client() as client:
        assert upload(client, {}).status_code == 201
        made = lazypix(server.data, "add", "shop", "--scope", "upload", "--max-bytes", "10G", "--json")
        key = json.loads(made.stdout)
        assert (key["name"], key["scopes"], key["max_bytes"]) == ("shop", ["upload"], 10 << 30)
        headers = {"Authorization": f"Bearer {key['key']}"}
        until(lambda: upload(client, {}).status_code == 401, REMEMBERED_S + 20)
        assert upload(client, headers).status_code == 201
        assert lazypix(server.data, "revoke", key["id"]).returncode == 0
        assert upload(client, {}).status_code == 401
        assert client.get("/images").status_code == 401


def test_keys_may_be_required_before_there_are_any(tmp_path: Path) -> None:
    made = lazypix(tmp_path / "data", "add", "first")  # there is no library yet
    assert made.returncode == 0
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    settings = {"keys_required": "true", "urls": "open"}
    with running(tmp_path / "data", "--host", "0.0.0.0", **settings) as server, server.client() as client:
        assert upload(client, {}).status_code == 401
        assert upload(client, headers).status_code == 201
        assert "<key>" in server.log.read_text()


def test_the_command_line_lists_keys_and_says_what_is_wrong(tmp_path: Path) -> None:
    data = tmp_path / "data"
    key = Key(data, "upload", "delete", max_images=12)
    listed = lazypix(data, "list").stdout
    assert key.id in listed
    assert {"key", "upload,", "delete"} <= set(listed.split())
    assert key.text.split("_", 2)[2] not in listed
    assert json.loads(lazypix(data, "list", "--json").stdout)[0]["max_images"] == 12
    unknown = lazypix(data, "revoke", "nobody")
    assert (unknown.returncode, unknown.stderr) == (1, "Error: There is no API key 'nobody'\n")
    size = lazypix(data, "add", "x", "--max-bytes", "10 apples")
    assert size.returncode == 2
    assert "max-bytes='10 apples' is not accepted" in size.stderr


def test_keys_with_quotas_are_listed_by_name_on_a_narrow_terminal(tmp_path: Path) -> None:
    data = tmp_path / "data"
    quotas = ("--max-images", "10000", "--max-bytes", "10G", "--per-minute", "600")
    assert lazypix(data, "add", "shop", "--scope", "upload", "--scope", "delete", *quotas).returncode == 0
    listed = lazypix(data, "list")
    assert "shop" in listed.stdout
    assert "0 of 10000" in listed.stdout
    assert "0 of 10G" in listed.stdout
