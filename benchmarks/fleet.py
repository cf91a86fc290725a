"""Benchmark of the fleet: one, two and three servers over one S3 store, one PostgreSQL and one Redis, behind nginx.

Short as it is; for figures to be kept, `--seconds 10 --rounds 5` on a machine that does nothing else: ten minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

os.environ["VIPS_CONCURRENCY"] = "1"  # read by libvips once; as lazypix' renderers set it

from rich.console import Console
from tests import programs
from tests.fleet.machines import shared_settings
from tests.server.nginx import command as nginx_command

from benchmarks import corpus
from benchmarks.client import Connection, ask, ask_each_once, get, wrk_on
from benchmarks.processes import cpu_s, free_port, own_cpu_s, running, wait_for_port
from benchmarks.report import Table, machine_line, median, ratio, write
from benchmarks.servers import version
from benchmarks.upload import form

SERVERS = (1, 2, 3)
CONNECTIONS = 64
STORED = 24
"""Images whose variants are asked for."""
FIRST_WIDTH = 101
WORK = {
    "direct": "hits from memory, each server asked directly",
    "front": "hits from memory, through nginx",
    "reads": "stored variants, read from S3",
    "made": "new variants of a 2 MP JPEG",
    "uploads": "uploads of a 2 MP JPEG",
}
EACH_SECOND = {"reads": 150, "made": 25, "uploads": 10}
"""So many requests are made for each second that was asked for; fewer than a fleet on two cores does."""
PARTS = ("server processes", "renderers", "nginx", "S3", "PostgreSQL", "Redis", "load generator")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all servers have in common."""

    settings: dict[str, str]
    pids: dict[str, int]
    picture: bytes
    idents: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """So many servers, and nginx in front of them."""

    ports: list[int]
    front: int
    servers: list[int]
    """Their process ids."""
    pids: dict[str, int]

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each part so far."""
        own = sum(own_cpu_s(pid) for pid in self.servers)
        parts = {name: cpu_s(pid) for name, pid in self.pids.items()}
        return parts | {
            "server processes": own,
            "renderers": sum(cpu_s(pid) for pid in self.servers) - own,
            "load generator": sum(os.times()[:4]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One kind of work on one group."""

    rate: float
    cpu_ms: dict[str, float]
    """Of each part, for one request."""
    busy: float
    """How much of all cores the parts used, 0..1."""


def main() -> int:
    """Run it; print tables, and write them if asked to."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, _interrupt)  # so that the servers are stopped
    pictures = corpus.build()
    begin = time.monotonic()

    def say(line: str) -> None:
        console.print(f"{time.monotonic() - begin:5.0f} s  {line}", highlight=False)

    # On the disk that the project is on: /tmp may be memory, where flushing a file costs nothing.
    with tempfile.TemporaryDirectory(prefix="work-", dir=pictures.folder) as folder:
        tables = measure(pictures, Path(folder), seconds=arguments.seconds, rounds=arguments.rounds, say=say)
    for table in tables:
        table.print(console)
    if arguments.write:
        said = f"python -m benchmarks.fleet --seconds {arguments.seconds} --rounds {arguments.rounds}"
        peers = {"nginx": version("nginx", "-v").rpartition("/")[2]}
        write(arguments.write, tables, machine_line(peers, said), name="fleet")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="about how long each kind of work is measured")
    parser.add_argument("--rounds", type=int, default=1, help="how often, with 1, 2 and 3 servers in turn")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this markdown file")
    return parser.parse_args()


def measure(pictures: corpus.Corpus, folder: Path, *, seconds: int, rounds: int, say: Say) -> list[Table]:
    """Measure all work on groups of all sizes; figures are medians of the rounds."""
    found: dict[tuple[str, int], list[Measured]] = defaultdict(list)
    with _shared(pictures, folder) as shared:
        widths = _Widths()
        _stock(shared, folder, widths, seconds * EACH_SECOND["reads"], say)
        for turn in range(rounds):
            for number in SERVERS:
                with _group(shared, number, folder / f"{turn}-{number}") as group:
                    for work in WORK:
                        found[work, number].append(_measure(work, shared, group, widths, seconds))
                say(f"round {turn + 1}, {number} servers")
    return [_rates(found), _costs(found)]


class _Widths:
    """Addresses of variants: those that are stored, and those that nobody has asked for yet."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        """In no memory of servers that were started since."""
        self._next = 0

    def new(self, idents: Sequence[str], count: int) -> list[bytes]:
        """Return so many requests for variants that were never made."""
        numbers = range(self._next, self._next + count)
        self._next += count
        return [get(f"/image/{FIRST_WIDTH + n // len(idents)}x/{idents[n % len(idents)]}.jpg") for n in numbers]


# --- what is measured ------------------------------------------------------------------------------------------


def _measure(work: str, shared: Shared, group: Group, widths: _Widths, seconds: int) -> Measured:
    if work in ("direct", "front"):
        ports = group.ports if work == "direct" else [group.front]
        path = f"/image/{FIRST_WIDTH}x/{shared.idents[0]}.jpg"
        for port in group.ports:
            _until_remembered(port, path)
        _hits(ports, path, 1)  # warm
        return _measured(group, lambda: (_hits(ports, path, seconds) * seconds, float(seconds)))
    count = EACH_SECOND[work] * seconds
    if work == "uploads":
        requests, status = [form(shared.picture)] * count, 201
    else:
        requests, status = (widths.stored if work == "reads" else widths.new(shared.idents, count)), 200
    return _measured(group, lambda: (count, ask_each_once(group.front, requests, connections=8, status=status)))


def _until_remembered(port: int, path: str) -> None:
    """Ask until the answer comes from memory."""
    for _ in range(200):
        reply = ask(port, get(path))
        if reply.status != 200:
            raise RuntimeError(f"{path}: status {reply.status}")
        if "cache" in reply.header("server-timing"):
            return
    raise RuntimeError(f"{path} is not remembered")


def _hits(ports: Sequence[int], path: str, seconds: int) -> float:
    """Ask all ports at once for one path over and over; return requests a second."""
    with ThreadPoolExecutor(len(ports)) as threads:
        urls = [f"http://127.0.0.1:{port}{path}" for port in ports]
        return sum(threads.map(lambda url: wrk_on(url, seconds=seconds, connections=CONNECTIONS // len(ports)), urls))


def _measured(group: Group, work: Callable[[], tuple[float, float]]) -> Measured:
    """Do the work, which tells how many requests it made in how many seconds."""
    before = group.cpu()
    requests, seconds = work()
    used = {name: after - before[name] for name, after in group.cpu().items()}
    return Measured(
        rate=requests / seconds,
        cpu_ms={name: max(value, 0.0) * 1000 / requests for name, value in used.items()},
        busy=sum(used.values()) / (seconds * (os.cpu_count() or 1)),
    )


def _rates(found: dict[tuple[str, int], list[Measured]]) -> Table:
    columns = ["requests/s through", *(f"{number} server{'s' * (number > 1)}" for number in SERVERS)]
    columns += ["2 / 1", "3 / 1", "cores busy with 3"]
    table = Table(
        title="Throughput with 1, 2 and 3 servers",
        columns=columns,
        note=f"Each server: one process and one renderer. {CONNECTIONS} connections in all for hits, from wrk; 8 for "
        "the rest, every request made once. nginx passes on, and caches nothing here. Everything, the load generator "
        f"too, shares {os.cpu_count()} cores: busy is how much of them all parts used together.",
    )
    for work, title in WORK.items():
        rates = {number: [one.rate for one in found[work, number]] for number in SERVERS}
        digits = 0 if work in ("direct", "front") else 1
        table.add(
            title,
            *(median(rates[number], digits) for number in SERVERS),
            ratio(rates[2], rates[1]),
            ratio(rates[3], rates[1]),
            f"{float(median([one.busy for one in found[work, 3]], 2)):.0%}",
        )
    return table


def _costs(found: dict[tuple[str, int], list[Measured]]) -> Table:
    table = Table(
        title="CPU of one request, by part",
        columns=["CPU ms with 3 servers", *PARTS],
        note="From /proc, of all processes of a part, ended ones included.",
    )
    for work, title in WORK.items():
        table.add(title, *(median([one.cpu_ms[part] for one in found[work, 3]], 3) for part in PARTS))
    return table


# --- the processes ---------------------------------------------------------------------------------------------


@contextmanager
def _shared(pictures: corpus.Corpus, folder: Path) -> Iterator[Shared]:
    with ExitStack() as stack:
        for name in ("s3", "redis"):
            (folder / name).mkdir()
        s3 = stack.enter_context(programs.seaweedfs(folder / "s3"))
        redis = stack.enter_context(programs.redis(folder / "redis"))
        postgres = stack.enter_context(programs.postgres())
        settings = shared_settings(s3, postgres.url, leases=f"redis://{redis.address}/0")
        yield Shared(
            settings=settings,
            pids={"S3": s3.process.pid, "PostgreSQL": postgres.program.process.pid, "Redis": redis.process.pid},
            picture=pictures.path(pictures.jpg_2).read_bytes(),
            idents=[],
        )


def _stock(shared: Shared, folder: Path, widths: _Widths, count: int, say: Say) -> None:
    """Store the images, and as many variants as will be read."""
    with _group(shared, 2, folder / "stock") as group:
        connection = Connection(group.ports[0])
        for number in range(STORED):
            ident = f"image{number}"
            reply = connection.ask(form(shared.picture, ident=ident))
            if reply.status != 201:
                raise RuntimeError(f"upload: status {reply.status}")
            shared.idents.append(ident)
        connection.close()
        widths.stored = widths.new(shared.idents, count)
        ask_each_once(group.front, widths.stored, connections=8)
    say(f"{STORED} images and {count} variants of them are stored")


@contextmanager
def _group(shared: Shared, number: int, folder: Path) -> Iterator[Group]:
    """Run so many servers, and nginx in front of them."""
    folder.mkdir()
    with ExitStack() as stack:
        ports, servers = [free_port() for _ in range(number)], []
        for port in ports:
            log = folder / f"{port}.log"
            environment = _environment(shared, folder / str(port), port)
            servers.append(
                stack.enter_context(
                    running([sys.executable, "-m", "lazypix", "serve"], log=log, environment=environment)
                )
            )
        for port, pid in zip(ports, servers, strict=True):
            wait_for_port(port, pid, folder / f"{port}.log")
        front, log = free_port(), folder / "nginx.log"
        command = nginx_command(folder, _configuration(shared, folder, front, ports))
        pid = stack.enter_context(running(command, log=log))
        wait_for_port(front, pid, log)
        yield Group(ports=ports, front=front, servers=servers, pids=shared.pids | {"nginx": pid})


def _environment(shared: Shared, data: Path, port: int) -> dict[str, str]:
    given = {f"LAZYPIX_{name.upper()}": value for name, value in shared.settings.items()}
    own = {"LAZYPIX_DATA": str(data), "LAZYPIX_PORT": str(port), "LAZYPIX_RENDERERS": "1", "LAZYPIX_CONFIG": ""}
    return given | own


def _configuration(shared: Shared, folder: Path, front: int, ports: Sequence[int]) -> str:
    """Return what `lazypix nginx` prints, with its cache off and writes allowed: all of this is one machine."""
    named = [word for port in ports for word in ("--upstream", f"127.0.0.1:{port}")]
    command = [sys.executable, "-m", "lazypix", "nginx", "--listen", f"127.0.0.1:{front}", "--cache-dir"]
    environment = os.environ | _environment(shared, folder / "printing", front) | {
        "LAZYPIX_API_KEYS": "only-to-let-writes-through", "LAZYPIX_URLS": "open"
    }  # fmt: skip
    done = subprocess.run(
        [*command, str(folder / "cache"), *named],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.replace("proxy_cache lazypix;", "proxy_cache off;")


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit("interrupted; all servers are stopped")
