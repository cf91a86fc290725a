"""The library as a whole: keys, formats, addresses, the end of it, and what a killed process left."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.engine import pictures as p
from tests.waiting import WAIT_S, signal_and_wait, wait
from tests.watched import WatchedEngine, all_blobs

from lazypix import Library
from lazypix.catalog import Image
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import (
    BadIdent,
    BadTransform,
    Busy,
    IdentTaken,
)
from lazypix.keys import KeyScheme
from lazypix.lease.flight import Flight
from lazypix.plan import Probe
from lazypix.transform import Transform
from lazypix.variants import Variant

JPG = p.jpg(p.quadrants())
PNG = p.encoded(p.quadrants())


def test_images_are_listed_newest_first(library: Library) -> None:
    idents = [library.add(PNG, ident=f"i{number}").ident for number in range(5)]
    assert [image.ident for image in library.list()] == idents[::-1]
    assert [image.ident for image in library.list(limit=2)] == ["i4", "i3"]
    assert [image.ident for image in library.list(limit=2, before="i3")] == ["i2", "i1"]


def test_keys_are_spelled_as_the_scheme_says(tmp_path: Path) -> None:
    with Library.open(tmp_path, keys=KeyScheme(prefix="img/", shard=2), engine=ThreadEngine(1)) as library:
        library.add(PNG, ident="cat")
        library.variant("cat", "60x")
        assert all_blobs(library) == ["img/at/cat/60x.png", "img/at/cat/origin.png"]
        library.delete("cat")
        assert all_blobs(library) == []


@pytest.mark.parametrize(
    ("source", "text", "asked", "made"),
    [
        (JPG, "60x", None, "jpg"),
        (JPG, "60x", "webp", "webp"),
        (JPG, "60x", "jpeg", "jpg"),
        (JPG, "60x,format=png", None, "png"),
        (JPG, "60x,lossless=true", None, "png"),
        (PNG, "60x", None, "png"),
        (p.encoded(p.see_through()), "20x", None, "png"),
        (p.encoded(p.quadrants(), "webp"), "60x,lossless=true", None, "webp"),
        (p.encoded(p.quadrants(), "tiff"), "60x", None, "jpg"),
        (p.encoded(p.see_through(), "tiff"), "20x", None, "png"),
        (p.film([p.RED, p.BLUE]), "20x", None, "gif"),
        (PNG, "60x,quality=50", None, "png"),
    ],
)
def test_the_format_of_a_variant(library: Library, source: bytes, text: str, asked: str | None, made: str) -> None:
    library.add(source, ident="cat")
    variant = library.variant("cat", text, format=asked)
    assert variant.transform.format == made
    assert p.opened(variant.body).format == {"jpg": "JPEG"}.get(made, made.upper())


def test_closing_twice_closes_nothing_of_others(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "a", engine=ThreadEngine(1))
    library.close()
    with Library.open(tmp_path / "b", engine=ThreadEngine(1)) as other:  # has the descriptors that became free
        library.close()
        assert other.add(PNG).format == "png"


def test_closing_finishes_what_is_being_made_and_leaves_nobody_waiting(
    tmp_path: Path, watched: WatchedEngine
) -> None:
    begun, go = threading.Event(), threading.Event()
    watched.before = lambda: signal_and_wait(begun, go)
    library = Library.open(tmp_path, engine=watched)
    image = library.add(JPG, ident="cat")
    making = [library.make(image, Transform(width=width, format="jpg")) for width in range(10, 60)]
    wait(begun)
    closing = threading.Thread(target=library.close)
    closing.start()
    go.set()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    finished = [_outcome(each) for each in making]
    assert "made" in finished
    assert set(finished) <= {"made", "busy"}


def test_a_process_that_does_not_close_ends_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(JPG)
    code = (
        "from lazypix import Library\n"
        "library = Library.open('library')\n"
        "ident = library.add('cat.jpg').ident\n"
        "print([library.variant(ident, '9x').transform.text for _ in range(2)])\n"  # the second is noted as used
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    assert (done.stdout, done.stderr) == ("['9x,format=jpg', '9x,format=jpg']\n", "")


def test_urls(tmp_path: Path) -> None:
    with Library.open(tmp_path, base_url="https://img.example/", engine=ThreadEngine(1)) as library:
        assert library.url("cat") == "https://img.example/image/cat.auto"
        assert library.url("cat", "200x100,fit=cover") == "https://img.example/image/200x100,fit=cover/cat.auto"
        assert library.url("cat", Transform(width=60), format="webp") == "https://img.example/image/60x/cat.webp"
        with pytest.raises(BadIdent):
            library.url("../cat")
        with pytest.raises(BadTransform):
            library.url("cat", "60")


CRASH = """
import os, sys
from lazypix import Library
from lazypix.stores.local import LocalStore

step, folder = sys.argv[1:]
data = sys.stdin.buffer.read()
library = Library.open(folder)
library.add(data, ident="whole")
die = lambda *_, **__: os._exit(9)
if step == "received":
    library.engine.inspect = die
if step == "claimed":
    library.store.create = die
if step == "stored":
    library.catalog.publish = die
if step == "deleting":
    library.add(data, ident="cat")
    library.variant("cat", "20x")
    library.store.delete_prefix = die
    library.delete("cat")
if step == "deleted":
    library.add(data, ident="cat")
    library.catalog.end_delete = die
    library.delete("cat")
library.add(data, ident="cat")
"""


@pytest.mark.parametrize("step", ["received", "claimed", "stored", "deleting", "deleted"])
def test_what_a_killed_process_left_is_swept_at_the_next_start(tmp_path: Path, step: str) -> None:
    command = [sys.executable, "-c", CRASH, step, str(tmp_path)]
    done = subprocess.run(command, input=JPG, capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode == 9, done.stderr
    with Library.open(tmp_path, engine=ThreadEngine(1)) as library:
        assert all_blobs(library) == ["whole/origin.jpg"]
        assert library.catalog.unfinished() == []
        assert [image.ident for image in library.list()] == ["whole"]
        if step in ("deleting", "deleted"):
            with pytest.raises(IdentTaken):
                library.add(JPG, ident="cat")
        else:
            assert library.add(JPG, ident="cat").ident == "cat"  # never acknowledged, so never taken


def test_nothing_is_swept_while_another_process_is_at_work(tmp_path: Path) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1)) as first:
        with first.incoming.new() as incoming:
            incoming.write(b"half")
            with Library.open(tmp_path, engine=ThreadEngine(1)):
                assert incoming.path.exists()
            assert first.sweep() == 0  # younger than an hour
            assert incoming.path.exists()
        assert all_blobs(first) == []


def test_a_library_can_be_opened_without_being_tidied(tmp_path: Path) -> None:
    with Library.open(tmp_path, engine=ThreadEngine(1), undelete_s=3600) as library:
        library.add(JPG, ident="cat")
        library.delete("cat")
    with Library.open(tmp_path, engine=ThreadEngine(1), tidies=False) as library:
        assert library.undelete("cat").ident == "cat"


def test_sweep_counts_what_it_removes(library: Library) -> None:
    incoming = library.incoming.new()
    incoming.write(b"half")
    incoming.finish()
    probe = Probe(format="jpg", width=1, height=1)
    library.catalog.claim(Image(ident="half", sha256="", size=0, probe=probe, created=datetime.now(UTC)))
    library.store.create("half/origin.jpg", b"x")
    assert library.sweep() == 0
    assert library.sweep(older_than_s=0) == 2
    assert all_blobs(library) == []


def test_a_library_is_asked_for_a_sign_of_life(library: Library) -> None:
    library.check()


def _outcome(making: Flight[Variant]) -> str:
    try:
        making.delivered.result(WAIT_S)
    except Busy:
        return "busy"
    return "made"
