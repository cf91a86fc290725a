"""A deletion ends shared answers: nothing older is found after it, whoever was slow and whatever was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.answers.machines import ASKED, QUIET_S, TTL_S, Clock, Machine, representation
from tests.waiting import WAIT_S, until

from lazypix.answers import SharedAnswers, Ticket
from lazypix.cache.process import ProcessCache

# --- generations -----------------------------------------------------------------------------------------------


def test_what_was_forgotten_is_found_nowhere(one: Machine, two: Machine, clock: Clock) -> None:
    one.shares(b"cat")
    one.shares(b"dog", "dog")
    two.answers.forget("cat")
    for _ in range(2):
        assert (one.finds(), two.finds()) == (None, None)
        assert one.finds("dog") == b"dog"
        clock.now += QUIET_S + 1
    one.shares(b"new")
    assert two.finds() == b"new"


def test_everything_can_be_forgotten(one: Machine, two: Machine, clock: Clock) -> None:
    one.shares(b"cat")
    one.shares(b"dog", "dog")
    two.answers.forget_all()
    for _ in range(2):
        assert [machine.finds(ident) for machine in (one, two) for ident in ("cat", "dog")] == [None] * 4
        clock.now += QUIET_S + 1
    one.shares(b"new")
    assert two.finds() == b"new"


def test_who_looked_before_the_deletion_and_stores_after_it_is_not_heard(
    one: Machine, two: Machine, clock: Clock
) -> None:
    ticket = one.ticket()  # then one looks at the catalog: the image is there; and renders for long
    two.answers.forget("cat")
    one.answers.set(ticket, ASKED, representation(b"late"))
    assert (one.finds(), two.finds()) == (None, None)
    clock.now += QUIET_S + 1
    assert two.answers.ticket("cat") is not None
    one.answers.set(ticket, ASKED, representation(b"later"))
    assert (one.finds(), two.finds()) == (None, None)


def test_for_a_while_after_a_deletion_nothing_is_shared(one: Machine, two: Machine, clock: Clock) -> None:
    two.answers.forget("cat")
    clock.now += QUIET_S - 1
    assert one.answers.ticket("cat") is None  # one may still remember the image
    assert two.answers.ticket("cat") is None
    assert one.answers.ticket("dog") is not None
    clock.now += 2
    assert one.answers.ticket("cat") is not None


def test_a_lost_generation_costs_misses_only(one: Machine, two: Machine, shared: ProcessCache) -> None:
    one.shares(b"body")
    ticket = one.ticket()
    shared.delete("generation:cat")
    assert two.finds() is None
    one.answers.set(ticket, ASKED, representation(b"under the lost one"))
    assert two.finds() is None
    two.shares(b"under the new one")
    assert one.finds() == b"under the new one"


def test_machines_that_begin_a_generation_together_agree(shared: ProcessCache, clock: Clock) -> None:
    machines = [Machine(shared, clock) for _ in range(8)]
    barrier = threading.Barrier(len(machines))

    def begin(machine: Machine) -> list[str]:
        tickets = []
        for turn in range(20):
            barrier.wait(WAIT_S)
            tickets.append(machine.ticket(f"image{turn}").generation)
        return tickets

    with ThreadPoolExecutor(len(machines)) as pool:
        begun = list(pool.map(begin, machines))
    assert all(tickets == begun[0] for tickets in begun)
    assert len(set(begun[0])) == 20


# --- a deletion while the cache does not answer ------------------------------------------------------------------


def test_a_deletion_during_an_outage_is_sent_when_it_is_over(one: Machine, two: Machine, clock: Clock) -> None:
    one.shares(b"cat")
    one.shares(b"dog", "dog")
    two.wire.cut = True
    two.answers.forget("cat")
    assert two.finds() is None
    assert one.finds() == b"cat"  # nobody can tell it
    clock.now += 20
    two.wire.cut = False
    assert two.finds() is None
    assert (one.finds(), one.finds("dog")) == (None, b"dog")
    assert two.finds("dog") == b"dog"
    clock.now += QUIET_S + 1
    two.shares(b"new")
    assert one.finds() == b"new"


def test_a_deletion_in_the_pause_after_a_short_failure_is_not_lost(one: Machine, two: Machine, clock: Clock) -> None:
    one.shares(b"cat")
    two.wire.cut = True
    assert two.finds("dog") is None
    two.wire.cut = False
    two.answers.forget("cat")  # the breaker is open: it is not sent
    assert two.finds() is None
    clock.now += 1
    two.finds("dog")  # whatever two is asked for
    assert one.finds() is None


def test_many_deletions_during_an_outage_are_one_of_everything(one: Machine, two: Machine, clock: Clock) -> None:
    one.shares(b"cat")
    two.wire.cut = True
    for number in range(10_001):
        two.answers.forget(f"image{number}" if number else "cat")
    assert two.finds("another") is None
    two.wire.cut = False
    clock.now += 20
    until(lambda: two.answers.ticket("another") is None and one.finds() is None)
    clock.now += QUIET_S + 1
    assert one.finds() is None
    two.shares(b"new")
    assert one.finds() == b"new"


def test_closing_sends_what_was_not_sent(one: Machine, two: Machine, clock: Clock) -> None:
    one.shares(b"cat")
    two.wire.cut = True
    two.answers.forget("cat")
    two.wire.cut = False
    clock.now += 20
    two.answers.close()
    two.answers.close()
    assert one.finds() is None


def test_a_cache_that_takes_nothing_more_still_forgets(one: Machine, shared: ProcessCache) -> None:
    class Full(ProcessCache):
        """As a Redis that is full and told to evict nothing."""

        def get(self, key: str) -> bytes | None:
            return shared.get(key)

        def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
            pass

        def add(self, key: str, value: bytes, *, ttl_s: float) -> bool:
            return False

        def delete(self, key: str) -> None:
            shared.delete(key)

    one.shares(b"cat")
    SharedAnswers(Full(), ttl_s=60).forget("cat")
    assert one.finds() is None


def test_a_machine_finds_nothing_of_what_it_could_not_forget(one: Machine, shared: ProcessCache) -> None:
    class ReadOnly(ProcessCache):
        """As a replica, or a server whose answers to writes get lost."""

        def get(self, key: str) -> bytes | None:
            return shared.get(key)

    one.shares(b"cat")
    one.shares(b"dog", "dog")
    answers = SharedAnswers(ReadOnly(), ttl_s=60)
    assert answers.ticket("cat") is not None
    answers.forget("cat")
    assert answers.ticket("cat") is None
    assert answers.ticket("dog") is not None
    answers.forget_all()
    assert answers.ticket("dog") is None


# --- any order of events -----------------------------------------------------------------------------------------


class Simulation:
    """Machines that answer in steps, while images are deleted, entries are lost, and time passes between any two.

    The body of an answer is the version of the image that its machine saw in the catalog. `gone` is what must not be
    found any more by whoever takes a ticket from now on.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self._choose = choose
        self.clock = Clock()
        self.shared = ProcessCache(clock=self.clock)
        self.machines = [Machine(self.shared, self.clock) for _ in range(3)]
        self.version = self.gone = 0
        self._depth = 0
        self._waiting: list[tuple[Machine, Ticket, int]] = []
        for machine in self.machines:
            machine.wire.before = self._between

    def event(self) -> None:
        kind = self._choose(7)
        machine = self.machines[self._choose(len(self.machines))]
        if kind <= 1:
            self._begin_answer(machine)
        elif kind == 2 and self._waiting:
            self._end_answer(*self._waiting.pop(self._choose(len(self._waiting))))
        elif kind == 3:
            self._change(machine)
        elif kind == 4:
            self.clock.now += (1, QUIET_S + 1, TTL_S + 1)[self._choose(3)]
        elif kind == 5 and (keys := self.shared.keys()):
            self.shared.delete(keys[self._choose(len(keys))])
        elif kind == 6:
            self._begin_answer(machine)
            if self._waiting:
                self._end_answer(*self._waiting.pop())

    def _begin_answer(self, machine: Machine) -> None:
        gone = self.gone
        ticket = machine.answers.ticket("cat")
        if ticket is None:
            return
        found = machine.answers.get(ticket, ASKED)
        if found is not None:
            assert int(found.body if isinstance(found.body, bytes) else b"-1") >= gone
            return
        self._waiting.append((machine, ticket, self.version))

    def _end_answer(self, machine: Machine, ticket: Ticket, seen: int) -> None:
        machine.answers.set(ticket, ASKED, representation(b"%d" % seen))

    def _change(self, machine: Machine) -> None:
        self.version += 1
        committed = self.version
        if self._choose(4):
            machine.answers.forget("cat")
        else:
            machine.answers.forget_all()
        self.gone = max(self.gone, committed)

    def _between(self) -> None:
        """Before each step of a machine at the cache, sometimes let others act."""
        if self._depth < 2 and self._choose(4) == 0:
            self._depth += 1
            self.event()
            self._depth -= 1


@settings(max_examples=1000)
@given(st.integers(0, 2**64))
def test_in_no_order_of_events_is_an_older_answer_found(seed: int) -> None:
    simulation = Simulation(Random(seed).randrange)
    for _ in range(40):
        simulation.event()
