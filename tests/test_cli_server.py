"""The command line, against a server: the same commands, the same output, errors that can be read."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from PIL import Image
from tests.engine.pictures import jpg, noise, quadrants
from tests.ports import free_port
from tests.server.running import Server, clean_environment, running
from typer.testing import CliRunner

from lazypix.cli.main import app

KEY = "a-key-of-16-chars"
Done = subprocess.CompletedProcess[bytes]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("cli") / "data", api_keys=KEY, undelete_s="3600") as started:
        yield started


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with pictures to work in, and no library."""
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(jpg(quadrants(90 + number, 60)))
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def lazypix(folder: Path, *arguments: str, **settings: str) -> Done:
    """Run a command in this process: starting one for each takes longer than what it does."""
    environment = {f"LAZYPIX_{name.upper()}": value for name, value in settings.items()}
    with chdir(folder):
        done = CliRunner().invoke(app, arguments, env=environment)
    return Done(arguments, done.exit_code, done.stdout_bytes, done.stderr_bytes)


def asked(folder: Path, server: Server, *arguments: str) -> Done:
    """Run a command that is told where the server is by the environment."""
    return lazypix(folder, *arguments, server=server.url, key=KEY)


def test_images_are_added_looked_at_and_removed(desk: Path, server: Server) -> None:
    done = lazypix(desk, "add", "0.jpg", "notes.txt", "1.jpg", "-m", "by=cli", "--server", server.url, "--key", KEY)
    assert done.returncode == 1
    assert b"notes.txt: " in done.stderr
    assert b"1 of 3 files were not added" in done.stderr
    first, second = (line.split()[0].decode() for line in done.stdout.splitlines())
    assert not (desk / "data").exists()
    assert server.get(f"/image/{first}.jpg").content == (desk / "0.jpg").read_bytes()

    facts = json.loads(asked(desk, server, "info", first, "--json").stdout)
    assert (facts["filename"], facts["metadata"], facts["width"]) == ("0.jpg", {"by": "cli"}, 90)
    listed = asked(desk, server, "list", "-w", "meta.by=cli", "--json").stdout.splitlines()
    assert [json.loads(line)["ident"] for line in listed] == [second, first]

    assert asked(desk, server, "get", first, "30x20,fit=cover", "-o", "small.webp").returncode == 0
    assert Image.open(io.BytesIO((desk / "small.webp").read_bytes())).size == (30, 20)
    same = asked(desk, server, "get", first, "--original", "-o", "-").stdout
    assert same == (desk / "0.jpg").read_bytes()

    purged = json.loads(asked(desk, server, "purge", first, "--json").stdout)
    assert purged["dropped"] == 1
    assert asked(desk, server, "delete", first, second, "--yes").stdout.split() == [
        b"deleted", first.encode(), b"deleted", second.encode()
    ]  # fmt: skip
    assert asked(desk, server, "undelete", second).stdout.decode().strip() == f"{second} is back"
    assert asked(desk, server, "info", first).returncode == 1


def test_an_address_is_the_servers(desk: Path, server: Server) -> None:
    url = asked(desk, server, "url", "abc", "30x20", "-f", "webp").stdout.decode().strip()
    assert url == f"{server.url}/image/30x20/abc.webp"


def test_what_goes_wrong_can_be_read(desk: Path, server: Server) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for arguments, code, text in (
        (("info", "nothing", "--server", server.url, "--key", KEY), 1, "There is no image nothing"),
        (("delete", "nothing", "-y", "--server", server.url, "--key", "another-key-of-16"), 1, "key"),
        (("info", "x", "--server", "img.example"), 2, "accepted: https://<host>"),
        (("info", "x", "--server", nowhere, "--data", "data"), 2, "one of them"),
        (("purge", "--all", "--server", server.url, "--key", KEY), 2, "images that are named"),
        (("add", "missing.jpg", "--server", server.url, "--key", KEY), 1, "missing.jpg"),
    ):
        done = lazypix(desk, *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert text in done.stderr.decode().replace("\n", " ")
        assert b"Traceback" not in done.stderr
        assert b"another-key" not in done.stderr


def test_a_folder_that_is_named_goes_before_the_server_of_the_settings(desk: Path, server: Server) -> None:
    ident = asked(desk, server, "add", "0.jpg", "--data", "here").stdout.split()[0].decode()
    assert (desk / "here" / "catalog.sqlite").exists()
    assert server.get(f"/info/{ident}").status_code == 404


def test_the_key_is_masked_where_settings_are_shown(desk: Path, server: Server) -> None:
    shown = asked(desk, server, "config", "--json").stdout.decode()
    assert json.loads(shown)["server"] == server.url
    assert KEY not in shown


def test_a_terminal_shows_how_much_of_a_large_file_is_sent(desk: Path, server: Server) -> None:
    (desk / "large.jpg").write_bytes(jpg(noise(1500, 1200)))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lazypix", "add", "large.jpg"], cwd=desk, stdout=subprocess.PIPE, stderr=theirs,
        env=clean_environment({"server": server.url, "key": KEY}) | {"TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = io.BytesIO()
    try:
        while data := os.read(ours, 4096):
            shown.write(data)
    except OSError:  # the other side is closed: the command ended
        pass
    printed = process.communicate(timeout=180)[0]
    assert printed.endswith(b"  large.jpg\n"), shown.getvalue().decode()
    assert process.returncode == 0
    os.close(ours)
    assert b" MB" in shown.getvalue()
