"""The folder store alone: what a person, the disk and a power cut see of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lazypix.errors import BlobExists, StoreFailed
from lazypix.stores.local import LocalStore


def _source(folder: Path, data: bytes) -> Path:
    path = folder / "finished"
    path.write_bytes(data)
    return path


def _leftovers(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_folder_store_is_readable_by_a_person(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("cat/200x100,fit=cover.jpg", b"x")
    assert (tmp_path / "cat" / "200x100,fit=cover.jpg").read_bytes() == b"x"
    assert _leftovers(tmp_path) == ["cat/200x100,fit=cover.jpg"]


def test_a_finished_file_is_moved_not_copied(tmp_path: Path) -> None:
    source = _source(tmp_path, b"x" * 1000)
    inode = source.stat().st_ino
    store = LocalStore(tmp_path / "store")
    store.create("a/b", source)
    path = store.local_path("a/b")
    assert path is not None
    assert path.stat().st_ino == inode
    assert not source.exists()


def test_a_file_of_another_file_system_is_taken_too(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    source = memory / f"lazypix-test-{tmp_path.name}"
    source.write_bytes(b"from elsewhere")
    try:
        store = LocalStore(tmp_path)
        store.create("a/b", source)
        assert store.get("a/b") == b"from elsewhere"
        assert not source.exists()
    finally:
        source.unlink(missing_ok=True)


def test_sweep_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("a/b", b"x")
    (tmp_path / ".tmp" / "half").write_bytes(b"half")
    (tmp_path / ".deleted" / "image").mkdir()
    (tmp_path / ".deleted" / "image" / "origin.jpg").write_bytes(b"old")
    assert [blob.key for blob in store.list()] == ["a/b"]
    assert store.sweep(older_than_s=0) == 2
    assert _leftovers(tmp_path) == ["a/b"]
    assert store.sweep(older_than_s=0) == 0


def test_two_stores_on_one_folder_are_one(tmp_path: Path) -> None:
    LocalStore(tmp_path).create("a/b", b"x")
    with pytest.raises(BlobExists):
        LocalStore(tmp_path).create("a/b", b"y")


@pytest.mark.parametrize("verb", ["create", "put"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, verb: str) -> None:
    """A limit on the size of files fails like a full disk: in the middle of a write."""
    script = f"""
import resource, sys
from lazypix.errors import StoreFull
from lazypix.stores.local import LocalStore
store = LocalStore({str(tmp_path)!r})
store.put("a/b", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.{verb}("a/{"b" if verb == "put" else "c"}", b"x" * 200_000)
except StoreFull as error:
    sys.exit(7 if "No space left" in str(error) else 8)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 7, done.stderr
    assert _leftovers(tmp_path) == ["a/b"]
    assert LocalStore(tmp_path).get("a/b") == b"old"


def test_sweep_spares_what_is_under_way(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    young, old = time.time_ns(), time.time_ns() - 7_200_000_000_000
    (tmp_path / ".tmp" / f"{young:016x}-a").write_bytes(b"being written")
    (tmp_path / ".tmp" / f"{old:016x}-b").write_bytes(b"left over")
    (tmp_path / ".deleted" / f"{old:016x}-c").mkdir()
    (tmp_path / ".deleted" / f"{old:016x}-c" / "origin.jpg").write_bytes(b"a picture that was deleted")
    assert store.sweep(older_than_s=3600) == 2
    assert _leftovers(tmp_path) == [f".tmp/{young:016x}-a"]


def test_a_folder_that_was_moved_away_is_no_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "images")
    store.check()
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreFailed, match="cannot be read"):
        store.check()


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were flushed to the disk, in order."""
    paths: list[str] = []
    flush = os.fsync

    def recorded(descriptor: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    return paths


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at /proc")


@needs_proc
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_what_was_acknowledged_has_been_flushed_with_all_its_folders(
    tmp_path: Path, flushed: list[str], kind: str
) -> None:
    store = LocalStore(tmp_path / "data" / "images")
    assert str(tmp_path) in flushed  # which holds the name "data"
    assert str(tmp_path / "data") in flushed
    for round_ in ("first", "second"):  # the second finds folders that another thread may have made a moment ago
        flushed.clear()
        data = round_.encode()
        store.create(f"ab/cat/{round_}", data if kind == "bytes" else _source(tmp_path, data))
        root = tmp_path / "data" / "images"
        assert flushed[0].startswith(str(root / ".tmp")), "the file itself first"
        assert {str(root / "ab" / "cat"), str(root / "ab"), str(root)} <= set(flushed)


@needs_proc
def test_what_can_be_made_again_is_flushed_without_its_folders(tmp_path: Path, flushed: list[str]) -> None:
    store = LocalStore(tmp_path)
    store.create("cat/origin.jpg", b"x")
    flushed.clear()
    store.put("cat/50x50.jpg", b"y", durable=False)
    assert [path for path in flushed if not path.startswith(str(tmp_path / ".tmp"))] == []
    assert len(flushed) == 1


@needs_proc
def test_a_deletion_is_flushed(tmp_path: Path, flushed: list[str]) -> None:
    store = LocalStore(tmp_path)
    store.create("ab/cat/origin.jpg", b"x")
    flushed.clear()
    assert store.delete_prefix("ab/cat/") == 1
    assert str(tmp_path / "ab") in flushed


def test_a_public_address_is_that_of_the_web_server(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, public_url="https://img.example/files/")
    assert (
        store.url("cat/100x50,fit=cover.jpg", expires_s=None) == "https://img.example/files/cat/100x50,fit=cover.jpg"
    )
    assert store.url("a b/ä?.jpg", expires_s=None) == "https://img.example/files/a%20b/%C3%A4%3F.jpg"
    assert store.url("cat/x.jpg", expires_s=60) is None  # a folder signs nothing
    assert LocalStore(tmp_path).url("cat/x.jpg", expires_s=None) is None
