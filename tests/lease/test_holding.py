"""A lease is held while work goes on: renewed, lost, waited for, given back; and what is done without one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from tests import programs
from tests.ports import free_port
from tests.waiting import WAIT_S, signal_and_wait, until, wait

from lazypix.cache.servers import RedisServer
from lazypix.catalog import Catalog
from lazypix.errors import Busy
from lazypix.lease import Lease, LeaseFailed, Leases
from lazypix.lease.catalog import CatalogLeases
from lazypix.lease.holding import FREE, PASSED, Holder, Turn
from lazypix.lease.memcached import MemcachedLeases
from lazypix.lease.redis import RedisLeases
from lazypix.lease.sharding import SpareLeases

SHORT_S, LONG_S = 0.3, 60.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """Passes on to other leases; counts, and can be cut off.

    With `lasting_s` they last for so long, whatever was asked for: where the holder's clock is set by hand.
    """

    def __init__(self, leases: Leases) -> None:
        self.leases = leases
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.asked_s: set[float] = set()
        self.lasting_s: float | None = None
        self.cut = False

    def take(self, key: str, *, ttl_s: float) -> Lease | None:
        self._call("take")
        return self.leases.take(key, ttl_s=self._lasting(ttl_s))

    def renew(self, lease: Lease, *, ttl_s: float) -> bool:
        self._call("renew")
        self.threads.add(threading.current_thread().name)
        return self.leases.renew(lease, ttl_s=self._lasting(ttl_s))

    def release(self, lease: Lease) -> bool:
        self._call("release")
        return self.leases.release(lease)

    def close(self) -> None:
        self.leases.close()

    def _lasting(self, ttl_s: float) -> float:
        self.asked_s.add(ttl_s)
        return self.lasting_s or ttl_s

    def _call(self, name: str) -> None:
        cut = self.cut  # as it is when the call is counted
        self.calls.append(name)
        if cut:
            raise LeaseFailed("cut")


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[Watched]:
    with closing(Catalog.sqlite(tmp_path / "catalog.sqlite")) as catalog:
        yield Watched(CatalogLeases(catalog))


@pytest.fixture
def holder(leases: Watched) -> Iterator[Holder]:
    with closing(Holder(leases, ttl_s=LONG_S)) as opened:
        yield opened


def hold(holder: Holder, key: str = "a", patience_s: float = WAIT_S) -> Turn:
    with holder.hold(key, patience_s=patience_s) as turn:
        return turn


def test_a_lease_is_held_and_given_back(holder: Holder, leases: Watched) -> None:
    with holder.hold("a", patience_s=0) as turn:
        assert turn.is_ours()
        assert turn.is_confirmed()
        assert turn.fence > 0
        assert leases.take("a", ttl_s=LONG_S) is None
    assert turn.is_ours(), "nobody else had it while the work went on"
    assert not turn.is_confirmed()
    assert leases.take("a", ttl_s=LONG_S) is not None


def test_a_lease_is_given_back_when_the_work_fails(holder: Holder, leases: Watched) -> None:
    with pytest.raises(ValueError, match="not today"), holder.hold("a", patience_s=0):
        raise ValueError("not today")
    assert leases.take("a", ttl_s=LONG_S) is not None


def test_one_thread_renews_all_for_as_long_as_work_goes_on(leases: Watched) -> None:
    clock = Clock()
    leases.lasting_s = LONG_S
    with closing(Holder(leases, ttl_s=SHORT_S, clock=clock)) as holder, ExitStack() as stack:
        turns = [stack.enter_context(holder.hold(f"{number}", patience_s=0)) for number in range(5)]
        for times in range(1, 7):  # for three times as long as they would last
            clock.now += SHORT_S / 2
            until(lambda: leases.calls.count("renew") == 5 * times)  # noqa: B023
        assert leases.asked_s == {SHORT_S}
        assert [turn.is_ours() for turn in turns] == [True] * 5
        assert [leases.take(f"{number}", ttl_s=LONG_S) for number in range(5)] == [None] * 5
        assert leases.threads == {"lazypix-renew"}
        stack.close()
        assert [hold(holder, f"{number}", 0).fence > 0 for number in range(5)] == [True] * 5
        with holder.hold("another", patience_s=0):
            clock.now += SHORT_S / 2  # it is renewed after all that would have been before
            until(lambda: leases.calls.count("renew") > 30)
            assert leases.calls.count("renew") == 31, "what was given back is not renewed"


def test_a_holder_whose_clock_went_on_has_lost_its_turn_without_asking(leases: Watched) -> None:
    clock = Clock()
    with closing(Holder(leases, ttl_s=15, clock=clock)) as holder, holder.hold("a", patience_s=0) as turn:
        leases.cut = True
        clock.now += 14.9
        assert turn.is_ours()
        clock.now += 0.2
        asked = len(leases.calls)
        assert not turn.is_ours()
        assert len(leases.calls) - asked <= 2, "only the thread that renews asks"
    assert not turn.is_ours()


@pytest.mark.parametrize(("ttl_s", "counted_s"), [(15, 14), (3, 2), (2.5, 2), (2, 1), (1, 1)])
def test_a_holder_counts_on_no_more_than_a_clock_of_whole_seconds_gives(
    tmp_path: Path, ttl_s: float, counted_s: float
) -> None:
    clock = Clock()
    with programs.memcached(tmp_path) as server:
        leases = Watched(MemcachedLeases("127.0.0.1", server.port, timeout_s=WAIT_S))
        with closing(Holder(leases, ttl_s=ttl_s, clock=clock)) as holder, holder.hold("a", patience_s=0) as turn:
            assert ttl_s < 15 or turn.is_confirmed(), "renewed; the others might end before on a slow machine"
            leases.cut = True
            clock.now += counted_s - 0.1
            assert turn.is_ours()
            clock.now += 0.2
            assert not turn.is_ours()


def test_a_holder_is_told_that_its_lease_was_given_to_another(
    leases: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Holder(leases, ttl_s=SHORT_S)) as holder, caplog.at_level(logging.WARNING, "lazypix"):
        with holder.hold("a", patience_s=0) as turn:
            leases.cut = True
            until(lambda: not turn.is_ours())
            taken: list[Lease] = []

            def given() -> bool:
                found = leases.leases.take("a", ttl_s=LONG_S)
                taken.extend([found] if found else [])
                return found is not None

            until(given)
            leases.cut = False
            until(lambda: "given to another" in caplog.text)
            assert not turn.is_ours()
            assert not turn.is_confirmed()
        assert not turn.is_ours()
        assert taken[0].fence > turn.fence
        assert leases.renew(taken[0], ttl_s=LONG_S), "what another has is not released"


def test_who_waits_gets_the_lease_when_it_is_given_back(holder: Holder) -> None:
    holding, go_on = threading.Event(), threading.Event()

    def first() -> int:
        with holder.hold("a", patience_s=WAIT_S) as turn:
            signal_and_wait(holding, go_on)
            return turn.fence

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        wait(holding)
        two = pool.submit(hold, holder)
        go_on.set()
        assert two.result(WAIT_S).fence > one.result(WAIT_S)


def test_many_hold_one_after_the_other(tmp_path: Path) -> None:
    """Two holders, as on two machines, eight threads: never two at once."""
    inside, most, barrier = [0], [0], threading.Barrier(8)
    with ExitStack() as stack:
        catalogs = [stack.enter_context(closing(Catalog.sqlite(tmp_path / "c.sqlite"))) for _ in range(2)]
        holders = [stack.enter_context(closing(Holder(CatalogLeases(c), ttl_s=LONG_S))) for c in catalogs]

        def work(number: int) -> int:
            barrier.wait(WAIT_S)
            with holders[number % 2].hold("a", patience_s=WAIT_S) as turn:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1
                return turn.fence

        with ThreadPoolExecutor(8) as pool:
            fences = list(pool.map(work, range(8)))
    assert most == [1]
    assert len(set(fences)) == 8
    assert 0 not in fences


def test_who_is_out_of_patience_works_and_keeps_nothing(holder: Holder, leases: Watched) -> None:
    leases.take("a", ttl_s=LONG_S)
    turn = hold(holder, patience_s=0.1)
    assert turn is PASSED
    assert (turn.fence, turn.is_ours(), turn.is_confirmed()) == (0, False, False)
    assert "release" not in leases.calls


def test_who_waits_looks_whether_the_work_is_done(leases: Watched) -> None:
    leases.take("a", ttl_s=LONG_S)
    looks: list[int] = []

    def is_done() -> bool:
        looks.append(leases.calls.count("take"))
        return len(looks) == 2

    def clock() -> float:
        return 0.3 * leases.calls.count("take")

    with closing(Holder(leases, ttl_s=LONG_S, clock=clock)) as holder:  # noqa: SIM117
        with holder.hold("a", patience_s=WAIT_S, is_done=is_done) as turn:
            assert turn is PASSED
    assert len(looks) == 2
    assert looks[0] > 2, "the store is asked less often than who gives the leases"


def test_who_fails_to_look_fails(holder: Holder, leases: Watched) -> None:
    leases.take("a", ttl_s=LONG_S)

    def is_done() -> bool:
        raise Busy("no store")

    with pytest.raises(Busy, match="no store"), holder.hold("a", patience_s=WAIT_S, is_done=is_done):
        pass


def test_nobody_waits_any_more_when_all_shall_end(holder: Holder, leases: Watched) -> None:
    leases.take("a", ttl_s=LONG_S)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hold, holder)
        until(lambda: leases.calls.count("take") > 2)
        holder.stop_waiting()
        with pytest.raises(Busy, match="Shutting down"):
            waiting.result(WAIT_S)
    assert hold(holder, "b").fence > 0, "what is free is given"


def test_without_its_server_work_goes_on_and_is_kept(holder: Holder, leases: Watched) -> None:
    leases.cut = True
    turn = hold(holder)
    assert turn is FREE
    assert (turn.fence, turn.is_ours(), turn.is_confirmed()) == (0, True, False)
    assert leases.calls == ["take"]


def test_who_waits_goes_on_when_the_server_dies(holder: Holder, leases: Watched) -> None:
    leases.take("a", ttl_s=LONG_S)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hold, holder)
        until(lambda: leases.calls.count("take") > 2)
        leases.cut = True
        assert waiting.result(WAIT_S) is FREE


def test_a_lease_that_cannot_be_given_back_was_ours_all_the_same(holder: Holder, leases: Watched) -> None:
    with holder.hold("a", patience_s=0) as turn:
        leases.cut = True
    assert turn.is_ours()


def test_a_lease_is_kept_over_a_short_failure(leases: Watched) -> None:
    clock = Clock()
    leases.lasting_s = LONG_S
    with closing(Holder(leases, ttl_s=SHORT_S, clock=clock)) as holder, holder.hold("a", patience_s=0) as turn:
        leases.cut = True
        clock.now += SHORT_S / 2
        until(lambda: leases.calls.count("renew") == 1)
        leases.cut = False
        clock.now += SHORT_S / 4
        until(lambda: leases.calls.count("renew") == 2)
        clock.now += SHORT_S / 2  # it would have ended, had it not been renewed
        until(lambda: leases.calls.count("renew") == 3)  # the second is over then
        assert turn.is_ours()
        assert leases.take("a", ttl_s=LONG_S) is None


@pytest.fixture
def redis_at(tmp_path: Path) -> Callable[[int], Holder]:
    def make(port: int) -> Holder:
        leases = RedisLeases(RedisServer(host="127.0.0.1", port=port), timeout_s=WAIT_S)
        return Holder(SpareLeases(leases), ttl_s=LONG_S)

    return make


def test_a_dead_server_is_told_of_once_and_used_again_when_it_is_back(
    redis_at: Callable[[int], Holder], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    with closing(redis_at(port)) as holder, caplog.at_level(logging.INFO, "lazypix"):
        with programs.redis(tmp_path, port=port):
            assert hold(holder).fence > 0
        assert {hold(holder, f"{number}") for number in range(20)} == {FREE}
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "going on without it" in caplog.text
        with programs.redis(tmp_path, port=port):
            until(lambda: hold(holder).fence > 0)
        assert "answers again" in caplog.text


def test_closing_twice_is_harmless(holder: Holder) -> None:
    hold(holder)
    holder.close()
    holder.close()
