"""The topology of compose.yaml by processes of this machine: `make fleet` runs it, and `test_topology` too.

PostgreSQL, Redis, memcached, an S3 server and RabbitMQ; two servers, two Celery workers and beat; nginx in front, with
the configuration that `lazypix nginx` prints. All listen on free ports of the loopback interface, in processes that
are stopped by their ids.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx
import pytest
from skimage import data
from tests import programs
from tests.files import files_in
from tests.fleet.machines import machines, shared_settings
from tests.fleet.workers import Worker, celery
from tests.ports import free_port
from tests.programs import Program
from tests.server.nginx import nginx
from tests.server.running import Server, clean_environment
from tests.waiting import until

from lazypix.stores import BlobStore

PHOTOGRAPH = Path(data.data_dir) / "retina.jpg"
"""A photograph of 1411x1411 pixels that scikit-image ships."""
NAMED = "400x300,200x<150"
KEY = "the-key-of-the-fleet"
NAMES = ("one", "two")
CACHED = "1s"
"""How long nginx believes what it has: less than the minute of a real one, for which a deletion would be waited."""
JOBS_S = 60.0
"""Within this time the workers have done what is asked of them here."""

INTERRUPTED = 130
"""What is returned when it was stopped before the main job was done, as shells have it for Ctrl-C."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet that is up."""

    front: httpx.Client
    """Asks nginx, with the key."""
    servers: list[Server]
    store: BlobStore
    replica: Path
    """The folder that receives what is stored, as the first ImageServer's clouds had it."""
    parts: dict[str, str]
    """Name and address of everything else."""


# --- the processes ---------------------------------------------------------------------------------------------


@contextmanager
def fleet(folder: Path, tell: Tell = lambda _: None) -> Iterator[Fleet]:
    """Run the fleet, with what it writes in `folder`; at the end of the block everything is stopped."""
    with ExitStack() as stack:
        parts: dict[str, Program] = {}

        def start(name: str, program: Program) -> Program:
            tell(f"{name:11} 127.0.0.1:{program.port}, process {program.process.pid}")
            parts[name] = program
            return program

        postgres = stack.enter_context(programs.postgres())
        start("PostgreSQL", postgres.program)
        redis = start("Redis", stack.enter_context(programs.redis(_made(folder / "redis"))))
        memcached = start("memcached", stack.enter_context(programs.memcached(_made(folder / "memcached"))))
        s3 = start("S3", stack.enter_context(programs.seaweedfs(_made(folder / "s3"))))
        rabbitmq = start("RabbitMQ", stack.enter_context(programs.rabbitmq(_made(folder / "rabbitmq"))))
        replica = folder / "replica"
        settings = shared_settings(
            s3, postgres.url, api_keys=KEY, urls="open", access_log="true", renderers="1",
            shared_cache=f"memcached://{memcached.address}", leases=f"redis://{redis.address}/0",
            jobs="celery", broker=f"amqp://guest:guest@{rabbitmq.address}//",
            replicas=json.dumps([{"name": "cloud", "store": replica.as_uri(), "what": "all", "layout": "imageserver"}]),
        )  # fmt: skip
        servers = stack.enter_context(machines(_made(folder / "servers"), 2, **settings))
        for name, server in zip(NAMES, servers, strict=True):
            tell(f"server {name:4} 127.0.0.1:{server.port}, process {server.pid}")
        for name, role in (*((f"worker-{name}", "worker") for name in NAMES), ("beat", "beat")):
            worker = stack.enter_context(_celery(folder / name, role, settings))
            tell(f"{name:11} process {worker.process.pid}")
        port = free_port()
        stack.enter_context(nginx(_made(folder / "nginx"), _configuration(folder, port, servers, settings), port))
        tell(f"{'nginx':11} 127.0.0.1:{port}")
        prefix = settings["store"].removeprefix("s3://bucket/").partition("?")[0]
        front = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {KEY}"}, timeout=60)
        )
        yield Fleet(
            front=front, servers=servers, store=programs.s3_store(s3, prefix), replica=replica,
            parts={name: program.address for name, program in parts.items()},
        )  # fmt: skip


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@contextmanager
def _celery(folder: Path, role: str, settings: dict[str, str]) -> Iterator[Worker]:
    """Run a Celery worker or beat, as their command lines are in compose.yaml."""
    options = {
        "worker": ["--concurrency", "1", "--hostname", f"{folder.name}@%h"],
        "beat": ["--schedule", str(folder / "schedule"), "--pidfile", ""],
    }
    ready = {"worker": " ready.", "beat": "beat: Starting"}
    with celery(_made(folder), role, *options[role], ready=ready[role], data="data", **settings) as worker:
        yield worker


def _configuration(folder: Path, port: int, servers: list[Server], settings: dict[str, str]) -> str:
    """Return what `lazypix nginx` prints for these servers."""
    upstreams = [word for server in servers for word in ("--upstream", f"127.0.0.1:{server.port}")]
    done = subprocess.run(
        [sys.executable, "-m", "lazypix", "nginx", "--data", str(folder / "printing"), "--listen", f"127.0.0.1:{port}",
         "--cache-dir", str(folder / "nginx" / "cache"), *upstreams],
        cwd=folder, env=clean_environment(settings), capture_output=True, text=True, timeout=180, check=False,
        start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("proxy_cache_valid 200 60s", f"proxy_cache_valid 200 {CACHED}")


# --- the main job ----------------------------------------------------------------------------------------------


def main_job(fleet: Fleet, tell: Tell) -> None:
    """Store a photograph, have it in sizes from everywhere, and delete it; fails where something is not so."""
    ident = _upload(fleet, tell)
    _named_sizes(fleet, ident, tell)
    _from_everywhere(fleet, ident, tell)
    _new_size(fleet, ident, tell)
    _conditions_and_parts(fleet, ident, tell)
    _replica_is_filled(fleet, ident, tell)
    _delete(fleet, ident, tell)


def _upload(fleet: Fleet, tell: Tell) -> str:
    begun = time.monotonic()
    answer = fleet.front.post("/upload", files={"image": PHOTOGRAPH.open("rb")}, data={"sizes": NAMED})
    assert answer.status_code == 201, answer.text
    ident = answer.json()["content"]["ident"]
    tell(f"uploaded {PHOTOGRAPH.stat().st_size:,} bytes as {ident} in {_ms(begun)}")
    assert isinstance(ident, str)
    return ident


def _named_sizes(fleet: Fleet, ident: str, tell: Tell) -> None:
    """Wait for the sizes that were named at the upload: nobody asks for them, and servers carry out no jobs here."""
    begun = time.monotonic()
    until(lambda: len(_keys(fleet, ident)) == 3, JOBS_S, lambda: f"stored: {_keys(fleet, ident)}")
    tell(f"the sizes {NAMED} were made by Celery workers, within {_ms(begun)}")


def _keys(fleet: Fleet, ident: str) -> list[str]:
    return [entry.key for entry in fleet.store.list(f"{ident}/")]


def _from_everywhere(fleet: Fleet, ident: str, tell: Tell) -> None:
    for target in (f"/image/{ident}.jpg?width=400&height=300", f"/image/{ident}.jpg?width=200&height=<150"):
        begun = time.monotonic()
        through = fleet.front.get(target)
        took = _ms(begun)
        assert through.status_code == 200, through.text
        for server in fleet.servers:
            direct = server.get(target)
            assert (direct.content, direct.headers["etag"]) == (through.content, through.headers["etag"])
        tell(
            f"{target.partition('?')[2]}: {len(through.content):,} bytes through nginx in {took}, same from both servers"
        )
    for _ in range(4):
        assert fleet.front.get(f"/info/{ident}").status_code == 200
    asked = [server.log.read_text().count(f"GET /info/{ident}") for server in fleet.servers]
    assert all(asked), f"nginx asks only one of the servers: {asked}"


def _new_size(fleet: Fleet, ident: str, tell: Tell) -> None:
    times = []
    for expected in (*["MISS"], "HIT"):
        begun = time.monotonic()
        answer = fleet.front.get(f"/image/640x640,fit=cover/{ident}.webp")
        times.append(_ms(begun))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/webp"
        assert answer.headers["server-timing"].endswith(expected)
    tell(f"a new size as WebP: {times[0]} for the first who asks, {times[1]} for the second")


def _conditions_and_parts(fleet: Fleet, ident: str, tell: Tell) -> None:
    target = f"/image/{ident}.jpg"
    whole = fleet.front.get(target)
    assert whole.content == PHOTOGRAPH.read_bytes()
    same = fleet.front.get(target, headers={"if-none-match": whole.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    part = fleet.front.get(target, headers={"range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, whole.content[1000:2000])
    tell("the original is what was uploaded; 304 for who has it, 206 for a part of it")


def _replica_is_filled(fleet: Fleet, ident: str, tell: Tell) -> None:
    begun = time.monotonic()
    copy = fleet.replica / "image" / f"{ident}.jpg"
    until(copy.exists, JOBS_S, lambda: f"not replicated: {files_in(fleet.replica)}")
    until(lambda: copy.read_bytes() == PHOTOGRAPH.read_bytes(), JOBS_S)
    tell(f"the replica has the original as image/{ident}.jpg, waited {_ms(begun)}")


def _delete(fleet: Fleet, ident: str, tell: Tell) -> None:
    target = f"/image/{ident}.jpg"
    assert fleet.front.delete(f"/image/{ident}").status_code == 200
    begun = time.monotonic()
    for server in fleet.servers:
        until(lambda s=server: s.get(target).status_code == 404)  # type: ignore[misc]
    tell(f"deleted: both servers answer 404 within {_ms(begun)}")
    until(lambda: fleet.front.get(target).status_code == 404, 20)
    until(lambda: not _keys(fleet, ident), JOBS_S)
    until(lambda: not (fleet.replica / "image" / f"{ident}.jpg").exists(), JOBS_S)
    tell(f"deleted: gone from nginx' cache ({CACHED} here), from S3 and from the replica within {_ms(begun)}")


def _ms(begun: float) -> str:
    return f"{(time.monotonic() - begun) * 1000:.0f} ms"


# --- make fleet ------------------------------------------------------------------------------------------------


def main() -> int:
    """Run the fleet from the command line; return 0 when all went well, 1 when something did not.

    `INTERRUPTED` when it was asked to stop before the main job was done, whatever became of that; a request that comes
    later changes nothing: 0 says that the main job was done, and everything stopped.
    """
    parser = argparse.ArgumentParser(prog="make fleet", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it up until Ctrl-C")
    keep = parser.parse_args().keep
    interruption = Interruption()
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    try:
        return _run(interruption, say, keep=keep)
    finally:
        say("stopped everything")


def _run(interruption: Interruption, say: Tell, *, keep: bool) -> int:
    def tell(text: str) -> None:
        say(text)
        interruption.heard()

    is_done = False
    try:
        tell("starting")
        with tempfile.TemporaryDirectory(prefix="lazypix-fleet-") as folder, fleet(Path(folder), tell) as running:
            main_job(running, tell)
            is_done = True
            say("all went well")
            if keep:
                _print_addresses(running)
                interruption.wait()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (AssertionError, pytest.fail.Exception, pytest.skip.Exception) as error:
        print(f"it failed: {error}", file=sys.stderr)
    except Exception:  # noqa: BLE001  # it is shown, and the code says so
        traceback.print_exc()
    else:
        return 0
    return INTERRUPTED if interruption.is_asked and not is_done else 1


class Interruption:
    """Ctrl-C or SIGTERM, heard between one step and the next.

    As an exception in the middle of a step it could come between the start of a process and the moment at which anybody
    knows of it, and leave that behind.
    """

    def __init__(self) -> None:
        self.is_asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        if self.is_asked:
            return
        self.is_asked = True
        with suppress(OSError):  # nobody reads it any more
            os.write(1, b"stopping after this step\n")  # not by print, in the middle of which this may come

    def heard(self) -> None:
        """Raise KeyboardInterrupt if somebody has asked to stop."""
        if self.is_asked:
            raise KeyboardInterrupt

    def wait(self) -> None:
        """Return when somebody has asked to stop."""
        while not self.is_asked:
            time.sleep(0.1)


def _print_addresses(fleet: Fleet) -> None:
    address = str(fleet.front.base_url)
    print(f"\nnginx {address}, key for writes: {KEY}")
    print(f"  curl -H 'Authorization: Bearer {KEY}' -F image=@photo.jpg -F ident=hello {address}/upload")
    for name, address in fleet.parts.items():
        print(f"{name} {address}")
    print("It stays up until Ctrl-C.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
