"""However many ask for a new variant at once, on however many machines: it is rendered once."""

from __future__ import annotations

import itertools
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

ROUNDS = 3
"""So often a test is begun: who stands still gives no leases, and is not waited for; see `Uncounted`."""

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
    """A function that runs new machines, with leases that last for so many seconds."""
    rounds = itertools.count()

    def run(lease_s: float) -> AbstractContextManager[list[Server]]:
        settings = shared_settings(
            seaweedfs, new_database(), leases=leases, lease_s=f"{lease_s:g}", log_level="debug", renderers="1",
            queue="1000", request_deadline_s=f"{PATIENCE_S:g}",
        )  # fmt: skip
        folder = tmp_path / f"round{next(rounds)}"
        folder.mkdir()
        return machines(folder, MACHINES, **settings)

    return run


class Uncounted(Exception):
    """A round tells nothing: somebody stood still in it for longer than it allows."""


def in_some_round(played: Callable[[], None]) -> None:
    """Have a round played anew, on machines of its own, until one counts; fail when none does."""
    reasons = []
    for _ in range(ROUNDS):
        try:
            played()
        except Uncounted as reason:
            reasons.append(str(reason))
        else:
            return
    pytest.fail(f"no round counts: {reasons}")


def lines(server: Server, word: str) -> int:
    """Count the renders that a machine began ("rendering") or ended ("rendered")."""
    return server.log.read_text().count(f" {word} ")


def renders(servers: list[Server]) -> list[int]:
    return [lines(server, "rendered") for server in servers]


def check_all_had_leases(servers: list[Server]) -> None:
    """Without an answer in time of who gives the leases, each machine may render: such a round does not count."""
    alone = [server.log.read_text().count("working without a lease") for server in servers]
    if any(alone):
        raise Uncounted(f"worked without a lease: {alone}")


def test_three_hundred_requests_on_three_machines_are_one_render(start: Start) -> None:
    def played() -> None:
        with start(LONG_S) as fleet:
            ident = fleet[0].upload(PICTURE)
            targets = (f"/image/640x480,fit=cover/{ident}.webp", f"/image/320x/{ident}.jpg")
            for number, target in enumerate(targets, start=1):
                answers = crowd(fleet, target, CROWD)
                assert [answer.status for answer in answers] == [200] * CROWD
                assert len({answer.body for answer in answers}) == 1
                check_all_had_leases(fleet)
                assert sum(renders(fleet)) == number, renders(fleet)

    in_some_round(played)


def stop_renderers(servers: list[Server]) -> list[int]:
    """Have no render end; return the processes, which are to be continued."""
    until(lambda: all(children(server.pid) for server in servers))
    pids = [pid for server in servers for pid in children(server.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def test_when_the_maker_is_killed_another_makes_it_once(start: Start) -> None:
    def played() -> None:
        with start(LEASE_S) as fleet:
            ident = fleet[0].upload(PICTURE)
            stopped = stop_renderers(fleet)
            died_at: list[float] = []
            makers: list[Server] = []

            def kill_the_maker() -> None:
                try:
                    until(lambda: any(lines(server, "rendering") for server in fleet))
                    makers.extend(server for server in fleet if lines(server, "rendering"))
                    died_at.append(time.monotonic())
                    kill(makers[0])
                finally:
                    for pid in stopped:
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGCONT)

            answers = crowd(fleet, f"/image/500x,quality=60/{ident}.avif", CROWD, kill_the_maker)
            took_s = time.monotonic() - died_at[0]
            dead, living = makers[0], [server for server in fleet if server != makers[0]]
            of_living = [answer for answer in answers if answer.server in living]
            assert [answer.status for answer in of_living] == [200] * (CROWD // MACHINES * len(living))
            assert len({answer.body for answer in of_living}) == 1
            assert renders([dead]) == [0], "it died in the middle"
            check_all_had_leases(fleet)
            assert makers == [dead], "one made it, and the others waited"
            assert sum(renders(living)) == 1, renders(living)
            if took_s >= BOUND_S:
                raise Uncounted(f"the last answer came {took_s:.1f} seconds after the death of the maker")

    in_some_round(played)
