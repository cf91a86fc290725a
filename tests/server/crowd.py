"""Many who ask at once, each on a connection of its own that is open before anybody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tests.server.running import Server
from tests.waiting import WAIT_S


@dataclass(frozen=True, slots=True)
class Got:
    """What one client got from which server; status 0: the connection broke."""

    server: Server
    status: int
    body: bytes


def crowd(servers: list[Server], target: str, size: int, meanwhile: Callable[[], None] = lambda: None) -> list[Got]:
    """Ask `size` times at once, the servers in turn; do `meanwhile`."""
    return asyncio.run(_crowd(servers, target, size, meanwhile))


async def _crowd(servers: list[Server], target: str, size: int, meanwhile: Callable[[], None]) -> list[Got]:
    all_connected = asyncio.Barrier(size + 1)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(_get(servers[n % len(servers)], target, all_connected)) for n in range(size)]
        await all_connected.wait()
        await asyncio.to_thread(meanwhile)
    return [task.result() for task in asking]


async def _get(server: Server, target: str, all_connected: asyncio.Barrier) -> Got:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        await all_connected.wait()
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(), WAIT_S)).partition(b"\r\n\r\n")
    except ConnectionError:
        return Got(server, 0, b"")
    finally:
        writer.close()
    return Got(server, int(head.split()[1]) if head else 0, body)
