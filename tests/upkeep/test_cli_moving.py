"""The commands that move a library, as a person or a script uses them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from tests.forked import run_module
from tests.server.running import clean_environment
from tests.upkeep.libraries import check_same, fill

from lazypix import Library
from lazypix.engine.idle import IdleEngine
from lazypix.engine.threads import ThreadEngine
from lazypix.keys import KeyScheme

Done = subprocess.CompletedProcess[bytes]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a library in `data`."""
    with Library.open(tmp_path / "data", engine=ThreadEngine(1), undelete_s=3600) as library:
        fill(library)
    return tmp_path


def lazypix(folder: Path, *arguments: str, **settings: str) -> Done:
    return run_module("lazypix", arguments, cwd=folder, env=clean_environment(settings))


def check_copied(folder: Path, name: str, keys: KeyScheme | None = None, *, variants: bool = True) -> None:
    with (
        Library.open(folder / "data", engine=IdleEngine(), tidies=False) as source,
        Library.open(folder / name, engine=IdleEngine(), keys=keys or KeyScheme(), tidies=False) as target,
    ):
        check_same(source, target, variants=variants)


def test_copy_to_a_folder_and_again(desk: Path) -> None:
    done = lazypix(desk, "copy", "data", "new")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"copied 6 images and 3 variants (")
    assert done.stderr == b""
    check_copied(desk, "new")
    facts = json.loads(lazypix(desk, "copy", "data", "new", "--json").stdout)
    assert (facts["copied"], facts["skipped"], facts["failed"], facts["failures"]) == (0, 7, 0, [])


def test_copy_between_settings_files_whatever_the_environment_says(desk: Path) -> None:
    (desk / "from.toml").write_text('data = "data"\nhost = "0.0.0.0"\n')
    (desk / "to.toml").write_text('data = "new"\nkey_prefix = "img/"\nkey_shard = 2\n')
    done = lazypix(
        desk, "copy", "from.toml", "to.toml", "--no-variants", "--threads", "1", data="other", key_shard="1"
    )
    assert done.returncode == 0, done.stderr
    check_copied(desk, "new", KeyScheme(prefix="img/", shard=2), variants=False)
    assert not (desk / "other").exists()


def test_copy_tells_what_failed(desk: Path) -> None:
    (desk / "data" / "images" / "cat" / "origin.jpg").write_bytes(b"x")
    done = lazypix(desk, "copy", "data", "new", "--json")
    assert done.returncode == 1
    facts = json.loads(done.stdout)
    assert (facts["copied"], facts["failed"], facts["failures"][0]["ident"]) == (5, 1, "cat")
    assert b"1 images were not copied" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("copy", "data", "data"), "the same library"),
        (("copy", "nothing", "new"), "no library in nothing"),
        (("copy", "data", "nothing.toml"), "no settings file nothing.toml"),
        (("copy", "data", "bad.toml"), "frobs"),
    ],
)
def test_mistakes_are_told(desk: Path, arguments: tuple[str, ...], words: str) -> None:
    (desk / "bad.toml").write_text("frobs = 1")
    done = lazypix(desk, *arguments)
    assert done.returncode == 2
    assert words in done.stderr.decode()
    assert not (desk / "new").exists()
    assert not (desk / "nothing").exists()


def test_a_progress_bar_is_shown_on_a_terminal(desk: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lazypix", "copy", "data", "new"],
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
    assert b"copying" in seen
    assert b"7/7" in seen


def shell(folder: Path, script: str) -> Done:
    """Run a script in which `lazypix` is the command."""
    script = f'set -o pipefail; lazypix() {{ "{sys.executable}" -m lazypix "$@"; }}; {script}'
    command = ["bash", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=clean_environment({}), capture_output=True, timeout=120, check=False
    )


def test_a_library_goes_through_a_pipe(desk: Path) -> None:
    done = shell(desk, "lazypix export - | lazypix import - --data new")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"imported 6 images and 0 variants (")
    assert done.stderr.startswith(b"exported 6 images and 0 variants (")
    check_copied(desk, "new", variants=False)
    done = shell(desk, "lazypix export - --variants --json | lazypix import - --data new --trust --json")
    facts = json.loads(done.stdout)
    assert (facts["copied"], facts["skipped"], facts["variants"]) == (0, 7, 3)
    check_copied(desk, "new")


def test_a_pipe_that_breaks_is_told_on_both_ends(desk: Path) -> None:
    done = shell(desk, "lazypix export - --variants | head -c 4000 | lazypix import - --data new")
    assert done.returncode == 1
    assert b"ends early" in done.stderr
    assert b"Traceback" not in done.stderr


def test_export_to_a_file_of_some_images(desk: Path) -> None:
    done = lazypix(desk, "export", "some.tar", "cat", "i4")
    assert (done.returncode, done.stderr) == (0, b"")
    before = (desk / "some.tar").read_bytes()
    done = lazypix(desk, "export", "some.tar")
    assert done.returncode == 1
    assert b"some.tar exists" in done.stderr
    assert (desk / "some.tar").read_bytes() == before
    assert shell(desk, "printf 'cat\\ni4\\n' | lazypix export other.tar -").returncode == 0
    assert len((desk / "other.tar").read_bytes()) == len(before)
    assert json.loads(lazypix(desk, "import", "other.tar", "--data", "new", "--json").stdout)["copied"] == 2
    done = lazypix(desk, "export", "none.tar", "nobody", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failures"] == [{"ident": "nobody", "reason": "There is no image nobody"}]
    assert sorted(path.name for path in desk.glob("*.tar*")) == ["none.tar", "other.tar", "some.tar"]


def test_import_of_what_is_no_archive(desk: Path) -> None:
    (desk / "bad.tar").write_bytes(b"x" * 2000)
    for name, words in (("bad.tar", "Not a tar archive"), ("nothing.tar", "No such file")):
        done = lazypix(desk, "import", name, "--data", "new")
        assert done.returncode == 1
        assert words in " ".join(done.stderr.decode().split())
