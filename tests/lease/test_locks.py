"""Locks between the processes of one machine, which may be killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lazypix.lease import locks as locks_module
from lazypix.lease.locks import FolderInUse, KeyLocks

WAIT_S = 30.0

HOLDER = """
import sys
from lazypix.lease.locks import FolderInUse, KeyLocks
folder, kind = sys.argv[1:]
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
if kind == "in-use":
    use = FolderInUse(folder)
    use.join(when_alone=lambda: print("alone", flush=True))
    wait()
else:
    with KeyLocks(folder).hold(kind, patience_s=0) as got:
        print(got, flush=True)
        wait()
"""


@contextmanager
def _another_process(folder: Path, kind: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a process that holds a lock until its input ends; give it and what it said before."""
    command = [sys.executable, "-c", HOLDER, str(folder), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = list(iter(process.stdout.readline, "ready\n"))
        yield process, said
        if process.poll() is None:
            process.communicate("\n", timeout=WAIT_S)


def _holds(locks: KeyLocks, key: str, patience_s: float = 0) -> bool:
    with locks.hold(key, patience_s=patience_s) as got:
        return got


def test_a_lock_is_held_by_one_process(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    assert _holds(locks, "key")
    with _another_process(tmp_path, "key") as (_, said):
        assert said == ["True\n"]
        assert not _holds(locks, "key")
        assert not _holds(locks, "key", patience_s=0.05)
        assert _holds(locks, "another key")
    assert _holds(locks, "key")


def test_a_lock_is_released_when_its_holder_is_killed(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    with _another_process(tmp_path, "key") as (process, _):
        assert not _holds(locks, "key")
        process.kill()
        assert _holds(locks, "key", patience_s=WAIT_S)
        process.wait(WAIT_S)


def test_a_waiter_gets_the_lock_when_it_is_released(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with locks.hold("key", patience_s=0) as got:
            assert got
            waiting = pool.submit(_holds, locks, "key", WAIT_S)
        assert waiting.result(WAIT_S)


def test_threads_exclude_each_other_too(tmp_path: Path) -> None:
    locks, barrier = KeyLocks(tmp_path), threading.Barrier(4)
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        barrier.wait(WAIT_S)
        for _ in range(20):
            with locks.hold("key", patience_s=WAIT_S) as got:
                assert got
                inside += 1
                most = max(most, inside)
                time.sleep(0)  # let another thread in, if it can get in
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        for ended in [pool.submit(work) for _ in range(4)]:
            ended.result(WAIT_S)
    assert most == 1


def test_no_file_is_left_for_each_key(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    if sys.platform == "linux":
        for number in range(100):
            assert _holds(locks, f"key {number}")
        assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]


def test_where_bytes_cannot_be_locked_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.setattr(locks_module, "_SET_BYTE_LOCK", 0)
    locks = KeyLocks(tmp_path)
    with locks.hold("key", patience_s=0) as got:
        assert got
        assert not _holds(locks, "key")
    assert _holds(locks, "key")
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_place_for_locks_the_work_goes_on(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path / "locks")
    (tmp_path / "locks").rmdir()
    with locks.hold("cat", patience_s=1) as held:
        assert not held


def test_a_lock_is_released_by_an_error(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    with pytest.raises(ValueError, match="no"), locks.hold("key", patience_s=0):
        raise ValueError("no")
    assert _holds(locks, "key")


def test_the_first_user_of_a_folder_is_alone_the_second_is_not(tmp_path: Path) -> None:
    path, alone = tmp_path / "in-use", []
    first, second = FolderInUse(path), FolderInUse(path)
    first.join(when_alone=lambda: alone.append("first"))
    second.join(when_alone=lambda: alone.append("second"))
    assert alone == ["first"]
    first.leave()
    third = FolderInUse(path)
    third.join(when_alone=lambda: alone.append("third"))
    second.leave()
    third.leave()
    fourth = FolderInUse(path)
    fourth.join(when_alone=lambda: alone.append("fourth"))
    fourth.leave()
    assert alone == ["first", "fourth"]


def test_a_user_in_another_process_counts_until_it_dies(tmp_path: Path) -> None:
    path, alone = tmp_path / "in-use", []
    with _another_process(path, "in-use") as (process, said):
        assert said == ["alone\n"]
        one = FolderInUse(path)
        one.join(when_alone=lambda: alone.append("with the other"))
        one.leave()
        process.kill()
        process.wait(WAIT_S)
        two = FolderInUse(path)
        two.join(when_alone=lambda: alone.append("after its death"))
        two.leave()
    assert alone == ["after its death"]


def test_who_comes_while_the_folder_is_being_cleaned_waits(tmp_path: Path) -> None:
    path, order = tmp_path / "in-use", []
    first, second = FolderInUse(path), FolderInUse(path)
    cleaning, clean = threading.Event(), threading.Event()

    def clean_up() -> None:
        cleaning.set()
        assert clean.wait(WAIT_S)
        order.append("clean")

    def come_second() -> None:
        second.join(when_alone=lambda: order.append("second alone"))
        order.append("second in")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.join, clean_up)
        assert cleaning.wait(WAIT_S)
        two = pool.submit(come_second)
        assert not two.done()
        clean.set()
        one.result(WAIT_S)
        two.result(WAIT_S)
    first.leave()
    second.leave()
    assert order == ["clean", "second in"]
