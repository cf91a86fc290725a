"""A library for an application: as the settings say, and once in each process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.engine.pictures import jpg, quadrants
from tests.waiting import until

from lazypix import Library
from lazypix.contrib.opening import OneAProcess, open_configured
from lazypix.errors import SettingsError


def test_settings_and_overrides_say_how_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYPIX_MAX_AGE_S", "77")
    with open_configured(data=tmp_path, base_url="/media", jobs=False) as library:
        library.add(jpg(quadrants()), ident="a")
        assert library.url("a", "50x") == "/media/image/50x/a.auto"
        answer = library.wsgi.answer({"REQUEST_METHOD": "GET", "PATH_INFO": "/image/50x/a.jpg"})
        assert dict(answer.headers)[b"cache-control"] == b"public, max-age=77"


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nonsense: there is no such setting"):
        open_configured(data=tmp_path, nonsense=1)


def test_the_library_sees_to_its_jobs(tmp_path: Path) -> None:
    with open_configured(data=tmp_path / "data", replica=f"file://{tmp_path}/replica") as library:
        image = library.add(jpg(quadrants()))
        stored = tmp_path / "replica" / library.keys.original(image.ident, image.format)
        until(stored.exists)


def test_without_jobs_they_are_left_for_others(tmp_path: Path) -> None:
    with open_configured(data=tmp_path / "data", replica=f"file://{tmp_path}/replica", jobs=False) as library:
        library.add(jpg(quadrants()))
        assert "lazypix-jobs" not in {thread.name for thread in threading.enumerate()}


def test_all_threads_get_one_library(tmp_path: Path) -> None:
    opened: list[Library] = []
    barrier = threading.Barrier(4)

    def open_once() -> Library:
        opened.append(Library.open(tmp_path))
        return opened[-1]

    one, found = OneAProcess(open_once), []

    def ask() -> None:
        barrier.wait()
        found.append(one())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(opened), {id(each) for each in found}) == (1, {id(opened[0])})
    one.close()
    assert one() is not opened[0]
    one.close()


_PRELOADED = """
import os, sys
from lazypix import Library
from lazypix.contrib.opening import OneAProcess

one = OneAProcess(lambda: Library.open("data"))
one()
child = os.fork()
if child == 0:
    one().add("photo.jpg", ident="a")
    print(len(one().variant("a", "20x").body), flush=True)
    one.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(len(one().variant("a", "20x").body))
one.close()
"""


def test_a_forked_process_opens_its_own(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpg(quadrants()))
    done = subprocess.run(
        [sys.executable, "-c", _PRELOADED], cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
    )
    sizes = done.stdout.split()
    assert (len(sizes), len(set(sizes))) == (2, 1), done.stderr


@pytest.mark.parametrize("name", ["django", "fastapi", "flask", "wheezy"])
def test_a_framework_that_is_missing_is_named_with_what_installs_it(name: str) -> None:
    module = "django.fields" if name == "django" else name
    code = f"import sys; sys.modules['{name}'] = None\nimport lazypix.contrib.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False)
    assert done.stderr.strip().endswith(f'is not installed: pip install "lazypix[{name}]"')
