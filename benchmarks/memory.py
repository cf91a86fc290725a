"""Memory of the whole server while it makes thousands of variants of a mix of pictures."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

from benchmarks.client import ask_each_once, get
from benchmarks.corpus import SEED, Corpus
from benchmarks.options import Options
from benchmarks.processes import memory_mb
from benchmarks.report import Table
from benchmarks.servers import Server, lazypix
from benchmarks.stock import stock

_MARKS = (1 / 6, 1 / 3, 2 / 3, 1.0)  # of all renders: the 500th, 1000th, 2000th and 3000th of 3000
_SHAPES = ("300x", "640x", "200x200,fit=cover", "1200x")
_SHARES = {"jpg_0_5": 44, "jpg_2": 30, "png": 8, "webp": 8, "gif": 2, "jpg_12": 6, "jpg_24": 2}
_FORMATS = {"png": "png", "gif": "gif", "webp": "webp"}
_CONNECTIONS = 4
_SAMPLES, _APART = 5, 20  # one alone would mostly tell how large the last picture was


def run(options: Options, corpus: Corpus, folder: Path) -> list[Table]:
    """Measure once; a figure is the sum over the server's processes when so many variants have been made."""
    figures = {}
    for bounded in (True, False):
        picks = _picks(options.renders)
        data = folder / f"memory-data-{bounded}"
        for field in _SHARES:
            idents = [f"{field}-{number}" for number in range(picks.count(field))]
            stock(data, corpus.path(getattr(corpus, field)), idents)
        with lazypix(data, folder, bounded_allocator=bounded) as server:
            figures[bounded] = _measure(server, _requests(picks))
    return [_table(figures[True], figures[False])]


def _picks(count: int) -> list[str]:
    """Return which picture each render is of: a mix, the same on every run."""
    chosen = random.Random(SEED).choices(list(_SHARES), weights=list(_SHARES.values()), k=count)
    return [*_SHARES, *chosen][:count]  # each of them at least once


def _requests(picks: list[str]) -> list[bytes]:
    seen = dict.fromkeys(_SHARES, 0)
    requests = []
    for field in picks:
        number, extension = seen[field], _FORMATS.get(field, "jpg")
        shape = "200x" if field == "gif" else _SHAPES[number % len(_SHAPES)]
        requests.append(get(f"/image/{shape}/{field}-{number}.{extension}"))
        seen[field] += 1
    return requests


def _measure(server: Server, requests: list[bytes]) -> list[tuple[int, float]]:
    """Return variants made, and MB then, at each mark."""
    figures, done = [], 0
    for share in _MARKS:
        mark = round(len(requests) * share)
        samples = []
        for stop in range(mark - (_SAMPLES - 1) * _APART, mark + 1, _APART):
            ask_each_once(server.port, requests[done:stop], connections=_CONNECTIONS)
            done = stop
            samples.append(memory_mb(server.pid))
        figures.append((mark, statistics.median(samples)))
    return figures


def _table(figures: list[tuple[int, float]], unbounded: list[tuple[int, float]]) -> Table:
    first = figures[0][1]
    growth = (figures[-1][1] / first - 1) * 100
    table = Table(
        title="Memory",
        note=f"Growth from the {figures[0][0]}th to the {figures[-1][0]}th: {growth:+.1f} %. JPEG of 0.5 to 24 MP, "
        "PNG, WebP and GIF, 4 connections; PSS of the whole process tree, renderers and the answer cache included, "
        f"the median of {_SAMPLES} samples up to then, {_APART} renders apart. Last column: the same with the "
        "allocator of the C library as it comes.",
        columns=["variants made", "MB", "to the first", "MB, allocator unbounded"],
    )
    for (done, megabytes), (_, free) in zip(figures, unbounded, strict=True):
        table.add(f"{done:,}", f"{megabytes:.0f}", f"{(megabytes / first - 1) * 100:+.1f} %", f"{free:.0f}")
    return table
