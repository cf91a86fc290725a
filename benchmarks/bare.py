"""The bare libvips loop that cold variants are compared with: thumbnail, save, nothing else.

As a program it is one worker: it reads an order a line from standard input (JSON), carries it out, and answers with
a line: how many seconds it took, and how much CPU time. `BareLoop` runs several of them at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast work went."""

    per_s: float
    """Requests (or images) a second."""
    cpu_ms: float
    """CPU time of all processes concerned, for one of them."""


class BareLoop:
    """Some worker processes that wait for orders."""

    def __init__(self, workers: list[subprocess.Popen[str]]) -> None:
        self._workers = workers

    def run(self, task: Task, path: Path, *, progressive: bool = True) -> Pace:
        """Let all workers together do `task.count` images of the file at `path`."""
        each = -(-task.count // len(self._workers))
        order = {
            "path": str(path),
            "width": task.width,
            "height": task.height,
            "format": task.format,
            "progressive": progressive,
            "count": each,
        }
        done = self._carry_out(order)
        return Pace(
            per_s=sum(each / answer["seconds"] for answer in done),
            cpu_ms=sum(answer["cpu_s"] for answer in done) * 1000 / (each * len(done)),
        )

    def decode(self, path: Path, count: int) -> float:
        """Let all workers together decode the file at `path` fully; return decodes a second."""
        each = -(-count // len(self._workers))
        return sum(each / answer["seconds"] for answer in self._carry_out({"path": str(path), "count": each}))

    def _carry_out(self, order: dict[str, Any]) -> list[dict[str, float]]:
        """Give every worker the order, all at once; return their answers."""
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write(json.dumps(order) + "\n")
            worker.stdin.flush()
        return [json.loads(_answer(worker)) for worker in self._workers]


@contextlib.contextmanager
def bare_loop(processes: int = 2) -> Iterator[BareLoop]:
    """Start the workers; stop them in the end."""
    with contextlib.ExitStack() as stack:
        yield BareLoop([stack.enter_context(_worker()) for _ in range(processes)])


@contextlib.contextmanager
def _worker() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "VIPS_CONCURRENCY": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _answer(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError("a worker of the bare loop died")
    return line


def _serve() -> None:
    import pyvips

    pyvips.cache_set_max(0)
    for line in sys.stdin:
        order = json.loads(line)
        make = _maker(order)
        make()  # warm
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(order["count"]):
            make()
        answer = {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        print(json.dumps(answer), flush=True)


def _maker(order: dict[str, Any]) -> Callable[[], object]:
    """Return a function that makes the variant once, with lazypix' encoder settings; without a format: decodes."""
    import pyvips

    data = Path(order["path"]).read_bytes()
    if "format" not in order:
        return lambda: pyvips.Image.new_from_buffer(data, "", access="sequential").avg()
    sizing = {"height": order["height"], "crop": "centre"} if order["height"] else {}
    if order["format"] == "gif":
        sizing["option_string"] = "n=-1"
    saver, options = {
        "jpg": ("jpegsave_buffer", {"Q": 80, "interlace": order["progressive"]}),
        "png": ("pngsave_buffer", {"compression": 6}),
        "gif": ("gifsave_buffer", {}),
        "webp": ("webpsave_buffer", {"Q": 80, "effort": 2}),
        "avif": ("heifsave_buffer", {"Q": 60, "effort": 1, "compression": "av1", "bitdepth": 8}),
    }[order["format"]]

    def make() -> object:
        return getattr(pyvips.Image.thumbnail_buffer(data, order["width"], **sizing), saver)(**options)

    return make


if __name__ == "__main__":
    _serve()
