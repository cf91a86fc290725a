"""Uploads of a 12 MP JPEG over HTTP, against durable copies of the same file."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.bare import bare_loop
from benchmarks.client import ask_each_once
from benchmarks.corpus import Corpus
from benchmarks.options import Options
from benchmarks.report import Table, median, ratio
from benchmarks.servers import lazypix

_BOUNDARY = "bench-boundary"
_NOTE = (
    "HTTP multipart on keep-alive connections, acknowledged when verified (every pixel decoded once), durable and "
    "catalogued. The copy: write, fsync, rename, fsync of the folder, in as many threads. The last column adds one "
    "full decode (in one or two processes) to the copy: what an upload that is verified must cost at least."
)


def run(options: Options, corpus: Corpus, folder: Path) -> list[Table]:
    """Measure; rounds are interleaved, figures are medians of the rounds."""
    picture = corpus.path(corpus.jpg_12).read_bytes()
    request = form(picture)
    copies = folder / "copies"
    copies.mkdir()
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    with lazypix(folder / "upload-data", folder) as server, bare_loop(1) as one, bare_loop(2) as two:
        ask_each_once(server.port, [request] * 4, connections=4, status=201)
        for _ in range(options.rounds):
            for connections, decoders in ((1, one), (4, two)):
                requests = [request] * options.uploads
                seconds = ask_each_once(server.port, requests, connections=connections, status=201)
                rates["upload", connections].append(options.uploads / seconds)
                rates["copy", connections].append(_copy(picture, copies, options.uploads, connections))
                rates["verify", connections].append(decoders.decode(corpus.path(corpus.jpg_12), options.uploads))
    size = len(picture) / 1e6
    return [_table(rates, size)]


def form(picture: bytes, ident: str = "") -> bytes:
    """Return the whole request of an upload; without `ident` the server chooses one."""
    named = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="ident"\r\n\r\n{ident}\r\n' if ident else ""
    head = (
        named.encode()
        + (
            f"--{_BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        ).encode()
    )
    body = head + picture + f"\r\n--{_BOUNDARY}--\r\n".encode()
    lines = (
        "POST /upload HTTP/1.1\r\n"
        "Host: 127.0.0.1\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return lines.encode() + body


def _copy(picture: bytes, folder: Path, count: int, threads: int) -> float:
    """Write the picture durably, `count` times; return copies a second."""

    def one(number: int) -> None:
        write_durably(folder / f"{number}.jpg", picture)

    return _rate(lambda: _all(one, count, threads), count)


def write_durably(target: Path, data: bytes) -> None:
    """Write a file, and flush it and its folder: the least that an acknowledged upload must do."""
    temporary = target.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _all(work: Callable[[int], None], count: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(count)))


def _rate(work: Callable[[], None], count: int) -> float:
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def _table(rates: dict[tuple[str, int], list[float]], size: float) -> Table:
    columns = ["upload", "ours, /s", "copy, /s", "decode, /s", "ours / copy", "ours / (copy + decode)"]
    table = Table(title=f"Uploads of a 12 MP JPEG ({size:.1f} MB)", note=_NOTE, columns=columns)
    for connections, name in ((1, "one after the other"), (4, "4 connections")):
        ours, copies, decodes = (rates[who, connections] for who in ("upload", "copy", "verify"))
        least = [1 / (1 / copy + 1 / decode) for copy, decode in zip(copies, decodes, strict=True)]
        table.add(
            name, median(ours, 1), median(copies, 1), median(decodes, 1), ratio(ours, copies), ratio(ours, least)
        )
    return table
