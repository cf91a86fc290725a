"""However many ask for a new variant at once, on however many machines: it is rendered once, or once more."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import pytest
from tests import programs
from tests.engine.pictures import jpg, noise
from tests.fleet.machines import machines, shared_settings
from tests.programs import Program
from tests.server.crowd import crowd
from tests.server.running import Server, children, kill
from tests.waiting import until

CROWD = 300
MACHINES = 3
LONG_S = 60.0
"""A lease that nobody loses who stands still for a while."""
LEASE_S = 6.0
BOUND_S = LEASE_S + 2.0
"""From the death of the maker to the last answer: its lease ends, which was renewed a while ago, the next machine sees
that within three eighths of a second, and renders."""
PATIENCE_S = 100.0
"""For so long a variant is waited for that others make: much longer than a lease of the dead holds it up."""

PICTURE = jpg(noise(1600, 1200))


@pytest.fixture(params=["redis", "memcached", "catalog"])
def leases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a server of leases."""
    with ExitStack() as stack:
        if request.param == "redis":
            yield f"redis://{stack.enter_context(programs.redis(tmp_path)).address}/0"
        elif request.param == "memcached":
            yield f"memcached://{stack.enter_context(programs.memcached(tmp_path)).address}"
        else:
            yield "catalog"


Start = Callable[[float], AbstractContextManager[list[Server]]]


@pytest.fixture
def start(leases: str, seaweedfs: Program, new_database: Callable[[], str], tmp_path: Path) -> Start:
    """A function that runs the machines, with leases that last for so many seconds."""

    def run(lease_s: float) -> AbstractContextManager[list[Server]]:
        settings = shared_settings(
            seaweedfs, new_database(), leases=leases, lease_s=f"{lease_s:g}", log_level="debug", renderers="1",
            queue="1000", request_deadline_s=f"{PATIENCE_S:g}",
        )  # fmt: skip
        return machines(tmp_path, MACHINES, **settings)

    return run


def lines(server: Server, word: str) -> int:
    """Count the renders that a machine began ("rendering") or ended ("rendered")."""
    return server.log.read_text().count(f" {word} ")


def renders(servers: list[Server]) -> list[int]:
    return [lines(server, "rendered") for server in servers]


def assert_rendered(servers: list[Server], number: int) -> None:
    """So many renders, and one more for each time that who gives the leases did not answer in time."""
    alone = sum(server.log.read_text().count("working without a lease") for server in servers)
    assert number <= sum(renders(servers)) <= number + alone, renders(servers)


def test_three_hundred_requests_on_three_machines_are_one_render(start: Start) -> None:
    with start(LONG_S) as fleet:
        ident = fleet[0].upload(PICTURE)
        targets = (f"/image/640x480,fit=cover/{ident}.webp", f"/image/320x/{ident}.jpg")
        for number, target in enumerate(targets, start=1):
            answers = crowd(fleet, target, CROWD)
            assert [answer.status for answer in answers] == [200] * CROWD
            assert len({answer.body for answer in answers}) == 1
            assert_rendered(fleet, number)


def stop_renderers(servers: list[Server]) -> list[int]:
    """Have no render end; return the processes, which are to be continued."""
    until(lambda: all(children(server.pid) for server in servers))
    pids = [pid for server in servers for pid in children(server.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def test_when_the_maker_is_killed_another_makes_it_once(start: Start) -> None:
    with start(LEASE_S) as fleet:
        ident = fleet[0].upload(PICTURE)
        stopped = stop_renderers(fleet)
        died_at: list[float] = []
        dead: list[Server] = []

        def kill_the_maker() -> None:
            try:
                until(lambda: any(lines(server, "rendering") for server in fleet))
                dead.append(next(server for server in fleet if lines(server, "rendering")))
                died_at.append(time.monotonic())
                kill(dead[0])
            finally:
                for pid in stopped:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)

        answers = crowd(fleet, f"/image/500x,quality=60/{ident}.avif", CROWD, kill_the_maker)
        took_s = time.monotonic() - died_at[0]
        assert renders(dead) == [0], "it died in the middle"
        living = [server for server in fleet if server not in dead]
        assert_rendered(living, 1)
        of_living = [answer for answer in answers if answer.server in living]
        assert [answer.status for answer in of_living] == [200] * (CROWD // MACHINES * len(living))
        assert len({answer.body for answer in of_living}) == 1
        assert took_s < BOUND_S
