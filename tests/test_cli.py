"""The command line, as a person or a script uses it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from tests.engine.pictures import encoded, jpg, quadrants
from tests.forked import run_module
from tests.server.running import clean_environment
from typer.testing import CliRunner

from lazypix import __version__
from lazypix.cli.main import app

Done = subprocess.CompletedProcess[bytes]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with pictures to work in."""
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(jpg(quadrants(90 + number, 60)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def lazypix(folder: Path, *arguments: str, **settings: str) -> Done:
    return run_module("lazypix", arguments, cwd=folder, env=clean_environment(settings))


def added(folder: Path, name: str = "0.jpg") -> str:
    done = lazypix(folder, "add", name)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0].decode()


def test_add_prints_an_ident_for_each_file(desk: Path) -> None:
    done = lazypix(desk, "add", "0.jpg", "1.jpg")
    assert done.returncode == 0
    idents, names = zip(*(line.split() for line in done.stdout.decode().splitlines()), strict=True)
    assert names == ("0.jpg", "1.jpg")
    assert all(re.fullmatch(r"[0-9a-f]{32}", ident) for ident in idents)
    assert (desk / "data" / "images" / idents[0] / "origin.jpg").read_bytes() == (desk / "0.jpg").read_bytes()


def test_add_takes_folders_idents_and_metadata(desk: Path) -> None:
    assert len(lazypix(desk, "add", ".").stdout.splitlines()) == 3
    done = lazypix(desk, "add", "0.jpg", "--ident", "alice", "-m", "album=holiday", "-m", "year=2026", "--json")
    facts = json.loads(done.stdout)
    assert (facts["ident"], facts["width"], facts["metadata"]) == ("alice", 90, {"album": "holiday", "year": "2026"})


def test_add_goes_on_after_a_bad_file_and_says_so(desk: Path) -> None:
    done = lazypix(desk, "add", "0.jpg", "notes.txt", "missing.jpg", "2.jpg")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    for words in ("notes.txt", "missing.jpg", "2 of 4 files were not added"):
        assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("a.webp", "WEBP"), ("a.png", "PNG"), ("a.avif", "AVIF")]
)
def test_get_writes_the_format_that_the_file_is_named_for(desk: Path, name: str, kind: str) -> None:
    assert lazypix(desk, "get", added(desk), "30x30,fit=cover", "-o", name).returncode == 0
    with Image.open(desk / name) as picture:
        assert (picture.format, picture.size) == (kind, (30, 30))


def test_get_writes_to_standard_output_and_the_original(desk: Path) -> None:
    ident = added(desk)
    with Image.open(io.BytesIO(lazypix(desk, "get", ident, "30x", "-o", "-").stdout)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (30, 20))
    assert lazypix(desk, "get", ident, "full", "--original", "-o", "copy.jpg").returncode == 0
    assert (desk / "copy.jpg").read_bytes() == (desk / "0.jpg").read_bytes()


def test_info_and_list_tell_what_is_there(desk: Path) -> None:
    first, second = added(desk, "0.jpg"), added(desk, "1.jpg")
    lazypix(desk, "get", first, "10x", "-o", "a.webp")
    facts = json.loads(lazypix(desk, "info", first, "--json").stdout)
    assert [variant["name"] for variant in facts["variants"]] == ["10x.webp"]
    assert first in lazypix(desk, "info", first).stdout.decode()
    listed = [json.loads(line)["ident"] for line in lazypix(desk, "list", "--json").stdout.splitlines()]
    assert listed == [second, first]
    assert first in lazypix(desk, "list", "--before", second).stdout.decode()
    assert json.loads(lazypix(desk, "list", "--limit", "1", "--json").stdout)["ident"] == second


def test_delete_asks_unless_told_not_to(desk: Path) -> None:
    ident = added(desk)
    assert lazypix(desk, "delete", ident).returncode != 0
    assert lazypix(desk, "info", ident).returncode == 0
    assert lazypix(desk, "delete", ident, "--yes").returncode == 0
    assert lazypix(desk, "info", ident).returncode == 1


def test_url_needs_no_library(desk: Path) -> None:
    assert lazypix(desk, "url", "abc", "30x20,fit=cover", "-f", "webp").stdout == b"/image/30x20,fit=cover/abc.webp\n"
    done = lazypix(desk, "url", "abc", base_url="https://img.example")
    assert done.stdout == b"https://img.example/image/abc.auto\n"
    assert not (desk / "data").exists()


def test_url_signs_with_the_keys_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = CliRunner().invoke
    key = call(app, ["url-key", "--id", "mine"]).stdout.strip()
    settings = {"url_keys": key, "urls": "signed", "presets": '{"thumb": "60x60,fit=cover"}'}
    environment = {f"LAZYPIX_{name.upper()}": value for name, value in settings.items()}
    asked = ["url", "abc", "@thumb", "-f", "webp", "--expires", "1h", "--scope", "800x800"]
    assert re.fullmatch(
        r"/image/60x60,fit=cover/abc\.webp\?s=mine\.[0-9a-z]{6}\.800x800\.[A-Za-z0-9_-]{43}\n",
        call(app, asked, env=environment).stdout,
    )
    for arguments, words in (
        (["30x", "--scope", "800x800"], "both sides"),
        (["30x", "--scope", "80"], "accepted: exact, presets"),
        (["30x", "--expires", "soon"], "15m, 1h, 7d"),
        (["@huge"], "accepted: @thumb"),
    ):
        refused = call(app, ["url", "abc", *arguments], env=environment)
        assert refused.exit_code != 0
        assert words in " ".join(refused.stderr.split())
        assert key.partition(":")[2] not in refused.output
    assert "url_keys" in call(app, ["url", "abc", "--expires", "1h"]).stderr
    assert json.loads(call(app, ["url-key", "--json"]).stdout)["url_key"] != key
    assert call(app, ["url-key", "--id", "Mine!"]).exit_code == 2


def test_config_shows_what_is_in_force_with_secrets_masked(desk: Path) -> None:
    done = lazypix(desk, "config", "--json", port="1234", api_keys="tell-nobody-ever")
    values = json.loads(done.stdout)
    assert values["port"] == 1234
    assert values["api_keys"] == ["**********"]
    assert b"tell-nobody" not in lazypix(desk, "config", api_keys="tell-nobody-ever").stdout


def test_sweep_and_version(desk: Path) -> None:
    added(desk)
    assert lazypix(desk, "sweep").stdout == b"removed 0 leftovers\n"
    assert lazypix(desk, "--version").stdout.decode() == f"lazypix {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("get", "nobody", "10x", "-o", "a.jpg"), 1, ("no image nobody",)),
        (("get", "../x", "10x", "-o", "a.jpg"), 1, ("Bad ident",)),
        (("url", "abc", "10x,fit=round"), 1, ("round", "inside, cover")),
        (("url", "abc", "10x", "-f", "bmp"), 1, ("bmp", "webp")),
        (("add", "0.jpg", "1.jpg", "--ident", "x"), 2, ("one file",)),
        (("add", "0.jpg", "-m", "novalue"), 2, ("novalue", "name=value")),
        (("add",), 2, ("Missing argument",)),
        (("frobnicate",), 2, ("frobnicate",)),
        (("info", "nobody"), 1, ("no image nobody",)),
        (("delete", "nobody", "--yes"), 1, ("no image nobody",)),
        (("list", "--before", "nobody"), 1, ("no image nobody",)),
        (("list", "-w", "colour=red"), 1, ("'colour'", "filename, smallest")),
        (("list", "-w", "order=random"), 1, ("'random'", "newest, oldest")),
        (("list", "-w", "created_from=soon"), 1, ("'soon'", "2026-11-21")),
        (("list", "-w", "novalue"), 2, ("novalue", "name=value")),
        (("info", "x", "--data", "elsewhere"), 1, ("no library in elsewhere", "lazypix add")),
        (("purge",), 1, ("Say which variants",)),
        (("purge", "nobody"), 1, ("no image nobody",)),
        (("undelete", "nobody"), 1, ("nobody", "can be had back")),
        (("repair",), 1, ("LocalStore", "beansdb://")),
        (("add", "empty"), 1, ("no images in empty",)),
    ],
)
def test_errors_name_what_is_wrong_on_standard_error(
    desk: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    added(desk, "2.jpg")
    done = lazypix(desk, *arguments)
    assert done.returncode == code, done.stderr
    text = " ".join(done.stderr.decode().split())
    for word in words:
        assert word in text
    assert "Traceback" not in text


def test_wrong_settings_end_with_code_two(desk: Path) -> None:
    done = lazypix(desk, "list", max_pixels="many")
    assert done.returncode == 2
    assert b"max_pixels='many'" in done.stderr


def command_of(name: str) -> Any:
    """The command of this name; of one in a group both words."""
    found: Any = typer.main.get_command(app)
    for word in name.split():
        found = found.commands[word]
    return found


def commands() -> list[str]:
    top: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    inner = {name: getattr(command, "commands", {"": None}) for name, command in top.items()}
    return sorted(f"{name} {each}".strip() for name, each_of in inner.items() for each in each_of)


def test_the_commands_are_these() -> None:
    assert commands() == [
        "add", "config", "copy", "delete", "export", "gc", "get", "import", "info", "jobs count", "jobs drop",
        "jobs list", "jobs retry", "jobs run", "keys add", "keys list", "keys revoke", "list", "nginx", "purge",
        "reindex", "repair", "replicas repair", "replicas status", "scrub", "serve", "sweep", "undelete", "url",
        "url-key", "verify",
    ]  # fmt: skip


def test_images_are_searched(desk: Path) -> None:
    lazypix(desk, "add", "0.jpg", "--ident", "a", "-m", "album=sea")
    lazypix(desk, "add", "1.jpg", "--ident", "b", "-m", "album=sea")
    lazypix(desk, "add", "2.jpg", "--ident", "c")

    def found(*where: str) -> list[str]:
        done = lazypix(desk, "list", "--json", *(word for pair in where for word in ("-w", pair)))
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["ident"] for line in done.stdout.splitlines()]

    assert found("meta.album=sea") == ["b", "a"]
    assert found("meta.album=sea", "order=oldest") == ["a", "b"]
    assert found("filename=1.") == ["b"]
    assert found("created_before=2001-01-01") == []
    assert sorted(found("largest=100000000", "order=smallest")) == ["a", "b", "c"]


def test_a_deleted_image_is_had_back(desk: Path) -> None:
    ident = added(desk)
    assert lazypix(desk, "delete", ident, "--yes", undelete_s="600").returncode == 0
    assert lazypix(desk, "info", ident).returncode == 1
    assert lazypix(desk, "undelete", ident, undelete_s="600").stdout.decode() == f"{ident} is back\n"
    assert lazypix(desk, "info", ident).returncode == 0
    assert lazypix(desk, "delete", ident, "--yes", "--for-good", undelete_s="600").returncode == 0
    assert lazypix(desk, "undelete", ident, undelete_s="600").returncode == 1


def test_upkeep_of_a_library_that_is_damaged(desk: Path) -> None:
    ident = added(desk)
    lazypix(desk, "get", ident, "10x", "-o", "a.jpg")
    done = lazypix(desk, "verify")
    assert (done.returncode, done.stdout) == (0, b"everything is as it should be\n")
    assert b"verified 1 originals" in lazypix(desk, "scrub").stdout
    original = desk / "data" / "images" / ident / "origin.jpg"
    original.write_bytes(original.read_bytes()[:-1] + b"?")
    done = lazypix(desk, "verify")
    assert (done.returncode, f"{ident}/origin.jpg: original damaged" in done.stdout.decode()) == (1, True)
    done = lazypix(desk, "scrub", "--json")
    assert (done.returncode, json.loads(done.stdout)["damaged"]) == (1, [ident])
    assert b"damaged" in lazypix(desk, "get", ident, "--original", "-o", "b.jpg").stderr
    (desk / "copies" / ident).mkdir(parents=True)
    (desk / "copies" / ident / "origin.jpg").write_bytes((desk / "0.jpg").read_bytes())
    done = lazypix(desk, "scrub", replica=f"file://{desk}/copies")
    assert f"mended from a replica: {ident}" in done.stdout.decode()
    assert lazypix(desk, "verify").returncode == 0
    assert json.loads(lazypix(desk, "purge", ident, "--json").stdout)["dropped"] == 1
    assert json.loads(lazypix(desk, "gc", "--json").stdout)["blobs"] == []
    (desk / "data" / "catalog.sqlite").rename(desk / "lost")
    for suffix in ("-wal", "-shm"):
        (desk / "data" / f"catalog.sqlite{suffix}").unlink(missing_ok=True)
    assert b"added 1 images" in lazypix(desk, "reindex").stdout
    assert lazypix(desk, "verify").returncode == 0


def test_an_original_is_not_written_under_a_wrong_name(desk: Path) -> None:
    ident = added(desk)
    assert lazypix(desk, "get", ident, "--original", "-o", "b.jpg").returncode == 0
    done = lazypix(desk, "get", ident, "--original", "-o", "b.png")
    assert (done.returncode, b"is jpg" in done.stderr) == (2, True)
    assert lazypix(desk, "get", ident, "10x", "--original", "-o", "c.jpg").returncode == 2


@pytest.mark.parametrize("name", commands())
def test_help_holds_an_example_that_can_be_parsed(name: str) -> None:
    command = command_of(name)
    examples = re.findall(r"`([^`]*lazypix [^`]*)`", command.epilog or "")
    assert examples, "no example"
    for example in examples:
        words = shlex.split(example.split("|")[0])
        words = words[words.index("lazypix") + 1 :]
        depth = len(name.split())
        assert words[:depth] == name.split()
        command.make_context(name, words[depth:]).close()


def test_a_progress_bar_is_shown_for_many_files_on_a_terminal_only(desk: Path) -> None:
    assert b"adding" not in lazypix(desk, "add", "0.jpg", "1.jpg", "2.jpg").stderr
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lazypix", "add", "0.jpg", "1.jpg", "2.jpg"],
        cwd=desk, env=clean_environment({}) | {"TERM": "xterm"}, stdout=subprocess.DEVNULL, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # the terminal is gone with its last writer
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert b"adding" in seen
    assert b"3/3" in seen


def test_a_png_from_a_pipe_is_not_misnamed(desk: Path) -> None:
    (desk / "wrong.jpg").write_bytes(encoded(quadrants()))
    done = lazypix(desk, "add", "wrong.jpg")
    assert done.returncode == 1
    assert "is a png image" in " ".join(done.stderr.decode().split())


def test_programs_can_read_what_every_command_did(desk: Path) -> None:
    ident = added(desk)
    assert json.loads(lazypix(desk, "get", ident, "20x", "-o", "small.png", "--json").stdout)["file"] == "small.png"
    assert json.loads(lazypix(desk, "url", ident, "20x", "--json").stdout)["url"].endswith(f"/image/20x/{ident}.auto")
    assert json.loads(lazypix(desk, "sweep", "--json").stdout) == {"removed": 0}
    done = lazypix(desk, "delete", "nobody", ident, "--yes", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"deleted": ident}]
    assert b"There is no image nobody" in done.stderr
    assert b"1 of 2 images were not deleted" in done.stderr
    assert done.returncode == 1


def test_only_what_decodes_images_loads_libvips(desk: Path) -> None:
    ident = added(desk)
    for arguments in (["list"], ["info", ident], ["delete", ident, "--yes"], ["sweep"]):
        script = (
            f"import sys; sys.argv[1:] = {arguments!r}; from lazypix.cli.main import app; app(standalone_mode=False)"
        )
        loaded = "; sys.exit('pyvips' in sys.modules)"
        command = [sys.executable, "-c", script + loaded]
        subprocess.run(command, cwd=desk, env=clean_environment({}), capture_output=True, check=True, timeout=180)
