"""Many small images through `Library.add` into a folder and a catalog: uploads, a page of the list, deletions."""

from __future__ import annotations

import io
import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyvips

from benchmarks.catalog_rows import Say, size_mb
from benchmarks.corpus import SEED, Corpus
from benchmarks.report import Table
from benchmarks.upload import write_durably
from lazypix import Library
from lazypix.catalog import Catalog
from lazypix.engine.threads import ThreadEngine

THREADS = 8
DISTINCT = 200
DELETIONS = 1000
_COPIES = 4000
_PAGES = 200
_NOTE = (
    "`Library.add` in {threads} threads: decoded once, written durably, catalogued; two rendering threads in the "
    "same process. {distinct} pictures of {size:.1f} KB on average, each with a comment of its own in the file. "
    "Copies: write, fsync, rename, fsync of the folder of the same files in as many threads, {copies:,} of them just "
    "before. CPU: of lazypix' process for one upload. The list: a page of 100 begun at random, the median of {pages} "
    "and the worst. Deletions: {deletions:,}, one after the other."
)


def table(corpus: Corpus) -> tuple[Table, list[bytes]]:
    """Return the empty table, and the pictures."""
    pictures = _pictures(corpus)
    columns = ["folder and", "images", "uploads/s", "copies/s", "uploads / copies", "CPU ms"]
    columns += ["a page, ms", "worst", "deletions/s", "catalog, MB"]
    size = statistics.mean(len(picture) for picture in pictures) / 1000
    note = _NOTE.format(
        threads=THREADS, distinct=DISTINCT, size=size, copies=_COPIES, pages=_PAGES, deletions=DELETIONS
    )
    return Table(title="Uploads of small images", note=note, columns=columns), pictures


def measure(made: Table, pictures: list[bytes], name: str, url: str, folder: Path, count: int, say: Say) -> None:
    """Add a row: upload, list and delete on one catalog."""
    copies = _copies(pictures, folder / "copies")
    with Library.open(folder / "library", catalog=Catalog.open(url), engine=ThreadEngine(2)) as library:
        say(f"{name}: {count:,} uploads …")
        cpu = time.process_time()
        seconds = _seconds(lambda: _upload(library, pictures, count))
        cpu = time.process_time() - cpu
        uploads = count / seconds
        say(f"{name}: {uploads:.1f} uploads a second")
        pick = random.Random(SEED)
        idents = [image.ident for image in library.catalog.walk()]
        pages = [1000 * _seconds(lambda: library.list(before=pick.choice(idents))) for _ in range(_PAGES)]
        megabytes = size_mb(url)
        doomed = pick.sample(idents, min(DELETIONS, count))
        deletions = len(doomed) / _seconds(lambda: _delete(library, doomed))
    made.add(
        name, f"{count:,}", f"{uploads:.0f}", f"{copies:.0f}", f"{uploads / copies:.2f}", f"{cpu / count * 1000:.1f}",
        f"{statistics.median(pages):.1f}", f"{max(pages):.1f}", f"{deletions:.0f}", f"{megabytes:,.0f}",
    )  # fmt: skip


def _upload(library: Library, pictures: list[bytes], count: int) -> None:
    def add(number: int) -> None:
        data = _with_comment(pictures[number % len(pictures)], number)
        metadata = {"album": f"a{number // 100}", "public": number % 2 == 0}
        library.add(io.BytesIO(data), filename=f"IMG_{number % 10_000:04}.JPG", metadata=metadata)

    _all(add, count)


def _delete(library: Library, idents: list[str]) -> None:
    for ident in idents:
        library.delete(ident)


def _copies(pictures: list[bytes], folder: Path) -> float:
    folder.mkdir(parents=True)

    def copy(number: int) -> None:
        write_durably(folder / f"{number}.jpg", _with_comment(pictures[number % len(pictures)], number))

    return _COPIES / _seconds(lambda: _all(copy, _COPIES))


def _all(work: Callable[[int], None], count: int) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, range(count)):
            pass


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _pictures(corpus: Corpus) -> list[bytes]:
    """Cut pieces of about 20 KB out of a photograph."""
    photograph = pyvips.Image.new_from_file(os.fspath(corpus.path(corpus.jpg_2))).copy_memory()
    pick = random.Random(SEED)
    pieces = []
    for _ in range(DISTINCT):
        left, top = pick.randrange(photograph.width - 364), pick.randrange(photograph.height - 244)
        pieces.append(bytes(photograph.crop(left, top, 364, 244).jpegsave_buffer(Q=82)))
    return pieces


def _with_comment(jpeg: bytes, number: int) -> bytes:
    """Return the same picture as another file: a comment behind the start of the image. Source: ITU T.81, B.2.4.5."""
    comment = f"{number:08}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
