"""The real servers that lazypix is tried against: each started on a free loopback port, and stopped by its process id.

All of their processes are out of the terminal's reach, which sends Ctrl-C to those of its foreground: whoever started them
hears it, and stops them.

Where a program is not installed its tests are skipped by name; where `CI` is set that is a failure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest
from tests.ports import free_port, free_ports
from tests.waiting import until

from lazypix.errors import StoreFailed
from lazypix.stores import BlobStore
from lazypix.stores.addresses import open_store

ROOT = Path(__file__).parent.parent
START_S = 120.0
ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-key"
READER_KEY = "test-reader"
"""The access key of one who may only read; its secret key is the same."""
BUCKET = "bucket"
PUBLIC_BUCKET = "public"
"""A bucket whose objects all the world may read, and nothing more."""
AZURE_ACCOUNT = "devstoreaccount1"
# Azurite's published account key, the same everywhere. Source: Azurite README, "Default Storage Account".
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A running server, in a process group of its own."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it at once, as a crash does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def pause(self) -> None:
        """Stop it without closing anything: connections hang."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        until(self._stands_still)  # on another processor it goes on for a moment, and may answer yet

    def _stands_still(self) -> bool:
        how = os.WSTOPPED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self.process.pid, how) is not None

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)


def find(name: str, *folders: str | Path) -> str:
    """Return the path of a program, or skip the test (fail in CI)."""
    places = [str(Path(sys.executable).parent), *(str(f) for f in folders), os.environ.get("PATH", ""), "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        message = f"{name} is not installed; scripts/servers.sh installs it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@contextmanager
def running(
    command: Sequence[str], port: int, ready: Callable[[int], bool], *, log: Path, user: int | None = None
) -> Iterator[Program]:
    """Run a server until the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True, user=user
        )
    program = Program(port=port, process=process)
    try:
        until(
            lambda: process.poll() is not None or ready(port),
            START_S,
            lambda: f"{command[0]} did not start:\n{log.read_text(errors='replace')[-4000:]}",
        )
        if process.poll() is not None:
            pytest.fail(f"{command[0]} ended at once:\n{log.read_text(errors='replace')[-4000:]}")
        yield program
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
        program.kill()


def listens(port: int) -> bool:
    with closing(socket.socket()) as client:
        client.settimeout(10)
        return client.connect_ex(("127.0.0.1", port)) == 0


def answers(path: str) -> Callable[[int], bool]:
    """Return a check that a server answers an HTTP request with 200."""

    def ready(port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    return ready


@contextmanager
def seaweedfs(folder: Path) -> Iterator[Program]:
    """Run a strict S3 server, with real signatures; it keeps its data in `folder`."""
    weed = find("weed")
    ports = free_ports(8)
    config = folder / "s3.json"
    identities = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": actions}
        for name, key, actions in (
            ("all", ACCESS_KEY, ["Admin", "Read", "Write", "List", "Tagging"]),
            ("reader", READER_KEY, ["Read", "List"]),
        )
    ]
    identities.append({"name": "anonymous", "credentials": [], "actions": [f"Read:{PUBLIC_BUCKET}"]})
    config.write_text(json.dumps({"identities": identities}))
    names = (
        "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
        "s3.port.grpc", "s3.port",
    )  # fmt: skip
    command = [
        weed, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
        "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-filer", "-s3", f"-s3.config={config}",
        "-master.volumeSizeLimitMB=64", "-volume.max=20",
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]  # fmt: skip
    with running(command, ports[-1], answers("/healthz"), log=folder / "weed.log") as program:
        for bucket in (BUCKET, PUBLIC_BUCKET):
            until(partial(_has_bucket, program, bucket), START_S, lambda: "no bucket could be made")
        yield program


def _has_bucket(program: Program, bucket: str) -> bool:
    """Make a bucket, as the first object in it does with this server; it may not be ready for that at once."""
    # Short: a signal is looked at when obstore is done, not before.
    query = {"endpoint": f"http://{program.address}", "region": "us-east-1", "timeout": "5", "retries": "0"}
    secrets = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    with closing(open_store(f"s3://{bucket}/?{urlencode(query)}", secrets=secrets)) as store:
        try:
            store.put("first", b"")
            store.delete("first")
        except StoreFailed:
            return False
    return True


@contextmanager
def rclone_s3(folder: Path, *, port: int | None = None) -> Iterator[Program]:
    """Run a poor S3 server: it ignores conditional puts, and answers ranges with everything."""
    port = port or free_port()
    root = folder / "root"
    (root / "bucket").mkdir(parents=True, exist_ok=True)
    keys = f"{ACCESS_KEY},{SECRET_KEY}"
    command = [
        find("rclone"), "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}", "--auth-key", keys,
        str(root),
    ]  # fmt: skip
    with running(command, port, listens, log=folder / "rclone.log") as program:
        yield program


@contextmanager
def azurite(folder: Path) -> Iterator[Program]:
    """Run Azure's blob storage emulator."""
    port = free_port()
    command = [
        find("azurite-blob", ROOT / ".programs" / "node_modules" / ".bin"), "--blobHost", "127.0.0.1", "--blobPort",
        str(port), "--location", str(folder), "--skipApiVersionCheck", "--disableTelemetry", "--silent",
    ]  # fmt: skip
    with running(command, port, listens, log=folder / "azurite.log") as program:
        make_azure_container(program, "container")
        yield program


@contextmanager
def redis(folder: Path, *, port: int | None = None) -> Iterator[Program]:
    """Run a Redis server without persistence."""
    port = port or free_port()
    command = [
        find("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir",
        str(folder),
    ]  # fmt: skip
    with running(command, port, listens, log=folder / "redis.log") as program:
        yield program


@contextmanager
def memcached(folder: Path, *, port: int | None = None) -> Iterator[Program]:
    """Run a memcached server."""
    port = port or free_port()
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    command = [find("memcached"), *user, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "64"]
    with running(command, port, listens, log=folder / "memcached.log") as program:
        yield program


@contextmanager
def rabbitmq(folder: Path, *, port: int | None = None) -> Iterator[Program]:
    """Run RabbitMQ with a port mapper of its own; durable queues stay in `folder`.

    Debian's wrapper changes the user, the folder and the session, where `Program` would lose it: the script behind it
    is run. Erlang would start its port mapper as a daemon: here it is there before, in the same process group.
    """
    mapper, spread, new = free_ports(3)
    port = port or new
    settings = {
        "HOME": folder,  # where Erlang keeps its cookie
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": mapper,
        "RABBITMQ_CONF_ENV_FILE": folder / "none.conf",
        "RABBITMQ_CONFIG_FILE": folder / "none",
        "RABBITMQ_DIST_PORT": spread,
        "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "plugins",
        "RABBITMQ_LOG_BASE": folder,
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_MNESIA_BASE": folder / "mnesia",
        "RABBITMQ_NODENAME": "lazypix@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": port,
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
    }
    command = [
        "/usr/bin/env", *(f"{name}={value}" for name, value in settings.items()), "/bin/sh", "-c", '"$0" & exec "$1"',
        find("epmd"), find("rabbitmq-server", "/usr/lib/rabbitmq/bin"),
    ]  # fmt: skip
    with running(command, port, listens, log=folder / "rabbitmq.log") as program:
        yield program


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A running PostgreSQL cluster, and how to start it again."""

    program: Program
    url: str
    """Of its first database, as SQLAlchemy wants it."""


@contextmanager
def postgres(*, port: int | None = None, folder: Path | None = None) -> Iterator[Postgres]:
    """Run PostgreSQL on a new cluster, or on the one in `folder` (which this user, or `postgres`, owns)."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    initdb = find("initdb", *versions)
    user = _postgres_user()
    port = port or free_port()
    made = None
    if folder is None:
        made = folder = Path(
            tempfile.mkdtemp(prefix="lazypix-postgres-")
        )  # outside of pytest's, which is root's alone
        if user is not None:
            os.chown(folder, user, -1)
    try:
        if not (folder / "PG_VERSION").exists():
            initial = [initdb, "-D", str(folder), "-U", "lazypix", "--auth=trust", "--encoding=UTF8", "--locale=C"]
            subprocess.run(initial, user=user, check=True, capture_output=True, timeout=120, start_new_session=True)
        server = str(Path(initdb).with_name("postgres"))
        # The machine does not fail under these tests; processes do, for which PostgreSQL need not wait for disks.
        quick = ["-c", "fsync=off", "-c", "full_page_writes=off"]
        command = [server, "-D", str(folder), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), *quick]
        log = Path(tempfile.mkstemp(prefix="lazypix-postgres-", suffix=".log")[1])
        try:
            with running(command, port, _postgres_answers(initdb, port), log=log, user=user) as program:
                yield Postgres(program=program, url=f"postgresql://lazypix@127.0.0.1:{port}/postgres")
        finally:
            log.unlink()
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _postgres_answers(initdb: str, port: int) -> Callable[[int], bool]:
    ready = [str(Path(initdb).with_name("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return lambda _: subprocess.run(ready, check=False, timeout=30, start_new_session=True).returncode == 0


def _postgres_user() -> int | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    import pwd

    return pwd.getpwnam("postgres").pw_uid


def s3_store(
    program: Program, prefix: str = "", *, port: int | None = None, access_key: str = ACCESS_KEY, **options: str
) -> BlobStore:
    """Open a running S3 server as a store; `port` is that of a proxy before it."""
    query = {"endpoint": f"http://127.0.0.1:{port or program.port}", "region": "us-east-1", **options}
    secrets = {"access_key": access_key, "secret_key": SECRET_KEY}
    return open_store(f"s3://bucket/{prefix}?{urlencode(query)}", secrets=secrets)


def azure_store(program: Program, prefix: str = "") -> BlobStore:
    """Open a running Azurite as a store."""
    query = {"endpoint": f"http://{program.address}/{AZURE_ACCOUNT}", "account": AZURE_ACCOUNT}
    return open_store(f"az://container/{prefix}?{urlencode(query)}", secrets={"secret_key": AZURE_KEY})


def make_azure_container(program: Program, name: str) -> None:
    """Make a container, which no part of ours does.

    Source: Azure documentation, "Authorize with Shared Key" (Blob service).
    """
    now, version = formatdate(usegmt=True), "2021-12-02"
    resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"x-ms-date:{now}\nx-ms-version:{version}\n{resource}"
    digest = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": now, "x-ms-version": version, "Content-Length": "0",
        "Authorization": f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}",
    }  # fmt: skip
    url = f"http://{program.address}/{AZURE_ACCOUNT}/{name}?restype=container"
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=60):
        pass


def environment_of(**more: str) -> Mapping[str, str]:
    """Return this process' environment with no setting of lazypix or of a cloud in it, and `more`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LAZYPIX_", "AWS_", "AZURE_", "GOOGLE_"))}
    return {**clean, **more}
