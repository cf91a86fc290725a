"""Several lazypix servers, each as on a machine of its own, over one S3 store and one PostgreSQL database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.programs import ACCESS_KEY, SECRET_KEY, Program, s3_store
from tests.server.running import Server, begin_anew, kill, stop, wait_until_ready

NAMES = ("one", "two", "three", "four", "five", "six")


def shared_settings(seaweedfs: Program, database: str, **more: str) -> dict[str, str]:
    """Return what all machines of one fleet have in common: a new prefix of the bucket, the database, and `more`.

    `database` is an address, as the fixture `new_database` gives it.
    """
    prefix = uuid.uuid4().hex
    with closing(s3_store(seaweedfs, prefix)) as store:
        store.check()  # writes, so that there is a bucket
    return {
        "store": f"s3://bucket/{prefix}?endpoint=http://{seaweedfs.address}&region=us-east-1",
        "store_access_key": ACCESS_KEY,
        "store_secret_key": SECRET_KEY,
        "catalog": database,
        **more,
    }


@contextmanager
def machines(folder: Path, number: int, *arguments: str, **settings: str) -> Iterator[list[Server]]:
    """Run so many servers with the same settings, each with its own data folder in `folder`.

    They start beside each other. Some may be killed in the block; of the others none must have logged a traceback,
    or leave a process behind.
    """
    servers: list[Server] = []
    try:
        for name in NAMES[:number]:
            servers.append(begin_anew(folder / name, *arguments, **settings))  # noqa: PERF401  # to be stopped if one fails
        for server in servers:
            wait_until_ready(server)
        yield servers
        for server in servers:
            assert "Traceback" not in server.log.read_text(), server.log.read_text()
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.process.terminate()
        try:
            for server in servers:
                stop(server)
        finally:
            for server in servers:
                kill(server)
