"""Hot hits: one stored JPEG of about 20 KB, asked for again and again, one process on one core."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks.client import ask, get, wrk
from benchmarks.corpus import Corpus
from benchmarks.options import Options
from benchmarks.processes import cpu_s
from benchmarks.report import Table, median, ratio
from benchmarks.servers import Server, lazypix, nginx, thumbor
from benchmarks.stock import stock

_SERVER_CORE, _CLIENT_CORE = 0, 1
_WIDTH = 330
_PATH = f"/image/{_WIDTH}x/hot.jpg"

_NAMES = {
    "nginx": "nginx, static file",
    "nginx_cache": "nginx, static file, open_file_cache",
    "lazypix": "lazypix, stored variant",
    "thumbor": "thumbor, file result storage",
    "nginx_304": "nginx, 304",
    "lazypix_304": "lazypix, 304",
}


def run(options: Options, corpus: Corpus, folder: Path) -> list[Table]:
    """Measure; rounds are interleaved, figures are medians of the rounds."""
    data, static = folder / "hot-data", folder / "hot-static"
    stock(data, corpus.path(corpus.jpg_2), ["hot"])
    rates: dict[str, list[float]] = defaultdict(list)
    used_us: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(lazypix(data, folder, core=_SERVER_CORE, renderers=1))
        size = _publish_same_bytes(ours, static)
        plain = stack.enter_context(nginx(static, folder, core=_SERVER_CORE))
        cached = stack.enter_context(nginx(static, folder, core=_SERVER_CORE, file_cache=True))
        ways = {
            "nginx": _hits(plain, "/hot.jpg", options.seconds),
            "lazypix": _hits(ours, _PATH, options.seconds),
            "nginx_cache": _hits(cached, "/hot.jpg", options.seconds),
            "nginx_304": _hits(plain, "/hot.jpg", options.seconds, conditional=True),
            "lazypix_304": _hits(ours, _PATH, options.seconds, conditional=True),
        }
        if options.thumbor is not None:
            theirs = stack.enter_context(
                thumbor(options.thumbor, corpus.folder, folder, processes=1, core=_SERVER_CORE, results=True)
            )
            ways["thumbor"] = _hits(theirs, f"/unsafe/{_WIDTH}x0/{corpus.jpg_2}", options.seconds)
        for _ in range(options.rounds):
            for name, measure in ways.items():
                rate, cpu_us = measure()
                rates[name].append(rate)
                used_us[name].append(cpu_us)
    return [_table(rates, used_us, size)]


def _publish_same_bytes(ours: Server, static: Path) -> int:
    body = ask(ours.port, get(_PATH)).body
    static.mkdir()
    (static / "hot.jpg").write_bytes(body)
    return len(body)


def _hits(server: Server, path: str, seconds: int, *, conditional: bool = False) -> Callable[[], tuple[float, float]]:
    """Return a function that measures requests a second, and CPU microseconds of the server a request."""
    first = ask(server.port, get(path))
    if first.status != 200:
        raise RuntimeError(f"{server.name} {path}: status {first.status}")
    headers = [f"If-None-Match: {first.header('etag')}"] if conditional else []
    expected = 304 if conditional else 200
    if ask(server.port, get(path, *headers)).status != expected:
        raise RuntimeError(f"{server.name} {path}: not {expected}")

    def measure() -> tuple[float, float]:
        wrk(server.port, path, seconds=1, core=_CLIENT_CORE, headers=headers)  # warm
        before = cpu_s(server.pid)
        rate = wrk(server.port, path, seconds=seconds, core=_CLIENT_CORE, headers=headers)
        return rate, (cpu_s(server.pid) - before) * 1e6 / (rate * seconds)

    return measure


def _table(rates: dict[str, list[float]], used_us: dict[str, list[float]], size: int) -> Table:
    table = Table(
        title="Hot hits",
        note=f"One process on one core, wrk on the other, 64 keep-alive connections, a JPEG of {size:,} bytes. "
        "CPU: the server's, for one request.",
        columns=["hot hit", "requests/s", "of nginx static", "of thumbor", "CPU µs"],
    )
    for name, title in _NAMES.items():
        if name in rates:
            table.add(
                title,
                median(rates[name]),
                ratio(rates[name], rates["nginx"]),
                ratio(rates[name], rates["thumbor"]) if "thumbor" in rates else "–",
                median(used_us[name], 1),
            )
    return table
