"""Benchmarks of lazypix against named peers, as ratios within one run."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

# Read by libvips once, when it is loaded: measured work runs one image a process, as in lazypix' renderers.
os.environ["VIPS_CONCURRENCY"] = "1"

from rich.console import Console

from benchmarks import cold, corpus, hot, memory, pixels, upload
from benchmarks.options import FULL, QUICK, Options
from benchmarks.report import Table, machine_line, write
from benchmarks.servers import version

_PARTS: dict[str, Callable[[Options, corpus.Corpus, Path], list[Table]]] = {
    "cold": cold.run,
    "hot": hot.run,
    "upload": upload.run,
    "memory": memory.run,
    "ssim": pixels.run,
}
_NEEDED = {"hot": ("nginx", "wrk", "taskset")}


def main() -> int:
    """Run what is asked for; print tables, and write them if asked to."""
    arguments = _arguments()
    parts = _chosen(arguments.only)
    console = Console(width=None if sys.stdout.isatty() else 140)
    options = replace(QUICK if arguments.quick else FULL, thumbor=_thumbor(arguments.thumbor, console))
    signal.signal(signal.SIGTERM, _interrupt)  # so that the servers are stopped
    machine = machine_line(_peers(options), _command())
    console.print(machine, highlight=False)
    console.print("Building the corpus (only once) …", highlight=False)
    pictures = corpus.build()
    tables = []
    for part in parts:
        console.print(f"\n[bold]{part}[/] …", highlight=False)
        # On the disk that the project is on: /tmp may be memory, where flushing a file costs nothing.
        with tempfile.TemporaryDirectory(prefix="work-", dir=pictures.folder) as folder:
            made = _PARTS[part](options, pictures, Path(folder))
        for table in made:
            table.print(console)
        tables += made
    if arguments.write:
        write(arguments.write, tables, machine)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests: a few minutes")
    parser.add_argument("--only", help=f"some parts, with commas between them: {','.join(_PARTS)}")
    parser.add_argument("--thumbor", type=Path, help="thumbor's program; without it that column is left out")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this markdown file")
    return parser.parse_args()


def _chosen(only: str | None) -> list[str]:
    parts = only.split(",") if only else list(_PARTS)
    for part in parts:
        if part not in _PARTS:
            sys.exit(f"--only {part}: there is no such part; accepted: {', '.join(_PARTS)}")
        missing = [program for program in _NEEDED.get(part, ()) if shutil.which(program) is None]
        if missing:
            sys.exit(f"{part} needs {', '.join(missing)}: install it, or leave this part out with --only")
    return parts


def _thumbor(given: Path | None, console: Console) -> Path | None:
    if given is None or not os.access(given, os.X_OK):
        where = f"not at {given}" if given else "--thumbor was not given"
        console.print(f"thumbor is missing ({where}): its column is left out", style="yellow", highlight=False)
        return None
    return given.absolute()


def _peers(options: Options) -> dict[str, str]:
    thumbor = version(options.thumbor, "--version") if options.thumbor else ""
    nginx = version("nginx", "-v").rpartition("/")[2] if shutil.which("nginx") else ""
    return {"thumbor": thumbor.removeprefix("Thumbor v").partition(" ")[0], "nginx": nginx}


def _command() -> str:
    """Return how the benchmarks were called, without this machine's paths."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return " ".join(["python -m benchmarks", *words])


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; all servers are stopped")
