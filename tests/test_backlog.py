"""The queue in front of the renderers: bounds, shares, turns, and nothing left over."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine import pictures as p
from tests.waiting import WAIT_S, until, wait
from tests.watched import WatchedEngine

from lazypix import Library
from lazypix.admission import Piece, Shares, Turns
from lazypix.backlog import Backlog
from lazypix.errors import Busy
from lazypix.plan import Limits, Plan, Probe, make_plan
from lazypix.transform import Transform

JPG = p.jpg(p.quadrants())
PLAN = make_plan(Transform.parse("60x,format=jpg"), Probe(format="jpg", width=120, height=80), Limits())


def small(seconds: float = 0.1) -> Piece:
    return Piece(seconds=seconds)


def heavy(seconds: float = 3.0) -> Piece:
    return Piece(seconds=seconds)


def background(seconds: float = 0.1) -> Piece:
    return Piece(seconds=seconds, background=True)


def upload(seconds: float = 0.1) -> Piece:
    return Piece(seconds=seconds, verifying=True)


# --- turns --------------------------------------------------------------------------------------------------------


class Going:
    """Pieces that go through `Turns`, by name and in order."""

    def __init__(self, slots: int, *, each: int | None = None, together: int | None = None) -> None:
        beside = max(1, slots - 1)
        self.turns = Turns(slots, each=each or beside, together=together or beside)
        self.pieces: dict[str, Piece] = {}
        self.gone: list[str] = []

    def wait(self, name: str, piece: Piece) -> None:
        self.pieces[name] = piece
        self.turns.wait(piece, lambda: self.gone.append(name))

    def all_that_may(self) -> list[str]:
        """Let go whoever may; return who that was."""
        before = len(self.gone)
        while (go := self.turns.take()) is not None:
            go()
        return self.gone[before:]

    def end(self, name: str) -> list[str]:
        self.turns.free(self.pieces[name])
        return self.all_that_may()


def test_those_of_one_kind_go_in_order() -> None:
    going = Going(1)
    for name in "abc":
        going.wait(name, small())
    assert going.all_that_may() == ["a"]
    assert [going.end("a"), going.end("b"), going.end("c")] == [["b"], ["c"], []]
    assert (going.turns.taken, going.turns.waiting) == (0, [])


def test_heavy_work_never_has_all_slots() -> None:
    going = Going(3)
    for number in range(5):
        going.wait(f"heavy{number}", heavy())
    assert going.all_that_may() == ["heavy0", "heavy1"]
    going.wait("small", small())
    assert going.all_that_may() == ["small"]
    assert going.end("small") == []
    assert going.end("heavy0") == ["heavy2"]


def test_with_one_slot_heavy_work_takes_turns_with_small() -> None:
    going = Going(1)
    for number in range(3):
        going.wait(f"heavy{number}", heavy(2.0))
    for number in range(60):
        going.wait(f"small{number}", small(0.1))
    going.all_that_may()
    while len(going.gone) < 63:
        going.end(going.gone[-1])
    between = "".join("H" if name.startswith("heavy") else "s" for name in going.gone).split("H")
    assert [len(part) for part in between[1:-1]] == [20, 20], "two seconds of small work between two heavy pieces"


def test_uploads_and_variants_take_turns() -> None:
    going = Going(1)
    for number in range(100):
        going.wait(f"small{number}", small())
    going.wait("upload", upload())
    going.all_that_may()
    for _ in range(2):
        going.end(going.gone[-1])
    assert "upload" in going.gone


def test_a_line_that_was_idle_has_saved_nothing_up() -> None:
    going = Going(1)
    for number in range(100):
        going.wait(f"small{number}", small())
    going.all_that_may()
    for _ in range(49):
        going.end(going.gone[-1])
    for number in range(10):
        going.wait(f"upload{number}", upload())
    begin = len(going.gone)
    for _ in range(10):
        going.end(going.gone[-1])
    assert 4 <= sum(name.startswith("upload") for name in going.gone[begin:]) <= 6


def test_work_in_the_background_goes_last_and_never_has_all_slots() -> None:
    going = Going(2)
    for number in range(3):
        going.wait(f"ahead{number}", background())
    assert going.all_that_may() == ["ahead0"]
    for number in range(3):
        going.wait(f"small{number}", small())
    assert going.all_that_may() == ["small0"]
    assert going.end("ahead0") == ["small1"]
    assert going.end("small0") == ["small2"]
    assert going.end("small1") == ["ahead1"]


def test_work_that_somebody_waits_for_leaves_the_background() -> None:
    going = Going(1)
    going.wait("running", small())
    going.all_that_may()
    going.wait("ahead", background())
    going.wait("wanted", background())
    going.wait("small", small())
    going.pieces["wanted"].background = False
    assert [going.end("running"), going.end("wanted"), going.end("small")] == [["wanted"], ["small"], ["ahead"]]


def test_heavy_work_and_work_in_the_background_have_bounds_of_their_own() -> None:
    going = Going(6, each=2, together=3)
    for number in range(4):
        going.wait(f"heavy{number}", heavy())
        going.wait(f"ahead{number}", background())
    assert going.all_that_may() == ["heavy0", "heavy1", "ahead0"]
    assert going.end("heavy0") == ["heavy2"]
    assert going.end("ahead0") == ["ahead1"]


def test_what_is_dropped_does_not_go() -> None:
    going = Going(1)
    for name in "abc":
        going.wait(name, small())
    going.all_that_may()
    assert going.turns.drop(going.pieces["b"])
    assert not going.turns.drop(going.pieces["b"])
    assert not going.turns.drop(going.pieces["a"]), "it has begun"
    assert going.end("a") == ["c"]


PIECES = st.builds(
    Piece,
    seconds=st.floats(0.001, 50),
    background=st.booleans(),
    verifying=st.booleans(),
)
STEPS = st.lists(st.tuples(st.sampled_from(["come", "go", "end", "drop", "hurry"]), st.integers(0, 50)), max_size=80)


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), STEPS, st.lists(PIECES, min_size=80, max_size=80))
def test_slots_are_never_over_their_bounds_and_all_go_in_the_end(
    slots: int, each: int, together: int, steps: list[tuple[str, int]], pieces: list[Piece]
) -> None:
    going = Going(slots, each=each, together=together)
    running: list[str] = []
    come = set()
    for (step, number), piece in zip(steps, pieces, strict=False):
        waiting = going.turns.waiting
        if step == "come":
            going.wait(str(len(going.pieces)), piece)
            come.add(str(len(going.pieces) - 1))
        elif step == "go":
            running += going.all_that_may()
        elif step == "end" and running:
            name = running.pop(number % len(running))
            running += going.end(name)
        elif step == "drop" and waiting:
            assert going.turns.drop(waiting[number % len(waiting)])
        elif step == "hurry" and waiting:
            waiting[number % len(waiting)].background = False
        assert 0 <= going.turns.taken == len(running) <= slots
        patient = [going.pieces[name].background for name in running if going.pieces[name].can_wait]
        assert max(patient.count(True), patient.count(False)) <= each
        assert len(patient) <= together
    running += going.all_that_may()
    while running:
        running += going.end(running.pop())
    assert (going.turns.taken, going.turns.waiting) == (0, [])
    assert len(going.gone) == len(set(going.gone))


# --- shares -------------------------------------------------------------------------------------------------------


def test_the_number_is_bounded_and_the_error_says_so() -> None:
    shares = Shares(places=2, seconds=100, renderers=2)
    pieces = [small(), small()]
    for piece in pieces:
        shares.admit(piece)
    with pytest.raises(Busy, match="2 images are being made") as busy:
        shares.admit(small())
    assert 1 <= busy.value.retry_after_s <= 3
    shares.leave(pieces[0])
    shares.admit(small())


def test_the_seconds_are_bounded_and_the_error_says_so() -> None:
    shares = Shares(places=1000, seconds=20, renderers=2)
    for _ in range(20):
        shares.admit(small(1.0))
    with pytest.raises(Busy, match="work for 10 seconds") as busy:
        shares.admit(small(0.5))
    assert 10 <= busy.value.retry_after_s <= 17


def test_heavy_work_leaves_room_for_small() -> None:
    shares = Shares(places=8, seconds=1000, renderers=2)
    for _ in range(6):
        shares.admit(heavy())
    with pytest.raises(Busy, match="6 heavy images"):
        shares.admit(heavy())
    shares.admit(small())
    shares = Shares(places=100, seconds=20, renderers=2)
    for _ in range(5):
        shares.admit(heavy(3.0))
    with pytest.raises(Busy, match=r"heavy work for 7\.5 seconds"):
        shares.admit(heavy(3.0))
    shares.admit(small())


def test_what_is_larger_than_all_the_room_is_made_when_nothing_else_is() -> None:
    shares = Shares(places=100, seconds=2, renderers=2)
    piece = heavy(60)
    shares.admit(piece)
    with pytest.raises(Busy):
        shares.admit(heavy(60))
    shares.admit(small())
    shares.leave(piece)
    shares.admit(heavy(60))


def test_work_in_the_background_is_let_in_while_half_is_free() -> None:
    shares = Shares(places=4, seconds=1000, renderers=2)
    shares.admit(small())
    shares.admit(background())
    with pytest.raises(Busy):
        shares.admit(background())
    shares.admit(small())
    shares.admit(small())


def test_uploads_are_counted_and_never_refused() -> None:
    shares = Shares(places=1, seconds=1, renderers=1)
    for _ in range(50):
        shares.admit(upload(0.2))
    shares.admit(small(0.2))
    assert (shares.count(), shares.count("verifying")) == (1, 50)
    assert shares.retry_after_s() >= 10, "they are ahead all the same"


def test_when_to_come_back_follows_the_work_ahead_and_is_spread() -> None:
    dice = random.Random(1)
    shares = Shares(places=1000, seconds=1000, renderers=2)
    assert {shares.retry_after_s(dice=dice) for _ in range(50)} == {1, 2}
    for _ in range(20):
        shares.admit(small(1.0))
    later = {shares.retry_after_s(dice=dice) for _ in range(200)}
    assert (min(later), max(later)) == (11, 17)
    assert len(later) > 4
    for _ in range(20):
        shares.admit(heavy(30))
    assert max(shares.retry_after_s(dice=dice) for _ in range(200)) <= 32


@given(
    st.integers(1, 20),
    st.floats(0.1, 50),
    st.lists(st.tuples(st.booleans(), st.integers(0, 50), PIECES), max_size=80),
)
def test_room_is_never_over_its_bounds_nor_below_nothing(
    places: int, seconds: float, steps: list[tuple[bool, int, Piece]]
) -> None:
    shares = Shares(places=places, seconds=seconds, renderers=2)
    inside: list[Piece] = []
    refused: list[Piece] = []
    for comes, number, piece in steps:
        if comes:
            try:
                shares.admit(piece)
            except Busy:
                refused.append(piece)
            else:
                inside.append(piece)
        elif inside:
            shares.leave(inside[number % len(inside)])
            shares.leave(inside.pop(number % len(inside)))
        uploads = sum(piece.kind == "verifying" for piece in inside)
        assert shares.count() == len(inside) - uploads <= places
        assert 0 <= shares.seconds() <= seconds + 1e-6
        assert shares.count("heavy") <= max(1, places - 1)
        assert shares.seconds("heavy") <= 0.75 * seconds + 1e-6
    for piece in inside:
        shares.leave(piece)
    assert (shares.count(), shares.seconds(), shares.count("verifying")) == (0, 0, 0)
    assert all(piece.kind != "verifying" for piece in refused)


# --- in front of an engine ----------------------------------------------------------------------------------------


class HeldEngine:
    """An engine whose work ends when the test says so."""

    workers = 2

    def __init__(self) -> None:
        self.begun: dict[str, Future[bytes]] = {}
        self.closed = False

    def inspect(self, path: str, limits: Limits) -> Future[Probe]:
        future: Future[Probe] = Future()
        self.begun[path] = future  # type: ignore[assignment]
        return future

    def render(self, path: str, plan: Plan) -> Future[bytes]:
        self.begun[path] = Future()
        return self.begun[path]

    def close(self) -> None:
        self.closed = True

    def end(self, path: str) -> None:
        self.begun.pop(path).set_result(path.encode())


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
def backlog(engine: HeldEngine) -> Iterator[Backlog]:
    queue = Backlog(engine, places=4, seconds=100)
    yield queue
    queue.stop()
    queue.close()
    assert engine.closed


def test_an_engine_is_given_no_more_than_it_has_renderers(backlog: Backlog, engine: HeldEngine) -> None:
    asked = {name: backlog.render(name, PLAN) for name in "abc"}
    assert set(engine.begun) == {"a", "b"}
    engine.end("b")
    assert asked["b"].result(0) == b"b"
    assert set(engine.begun) == {"a", "c"}
    engine.end("a")
    engine.end("c")
    assert [each.result(0) for each in asked.values()] == [b"a", b"b", b"c"]


def test_an_upload_goes_before_the_rest_of_a_long_line(backlog: Backlog, engine: HeldEngine, tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.write_bytes(JPG)
    for number in range(20):
        backlog.render(str(number), PLAN, small())
    verified = backlog.inspect(str(path), Limits())
    for number in range(2):
        engine.end(str(number))
    assert str(path) in engine.begun
    engine.end(str(path))
    assert verified.done()
    for number in range(2, 20):
        engine.end(str(number))


def test_who_gives_up_before_its_turn_costs_no_renderer(backlog: Backlog, engine: HeldEngine) -> None:
    first, second, third, fourth = (backlog.render(name, PLAN) for name in "abcd")
    assert third.cancel()
    assert first.cancel(), "what has begun goes on, for nobody"
    assert set(engine.begun) == {"a", "b"}, "and its renderer is not free before it ends"
    engine.end("a")
    assert set(engine.begun) == {"b", "d"}
    engine.end("b")
    engine.end("d")
    assert [second.result(0), fourth.result(0)] == [b"b", b"d"]


def test_an_error_frees_the_renderer(backlog: Backlog, engine: HeldEngine) -> None:
    asked = [backlog.render(name, PLAN) for name in "abc"]
    engine.begun.pop("a").set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        asked[0].result(0)
    assert set(engine.begun) == {"b", "c"}
    engine.begun.pop("b").cancel()
    with pytest.raises(Busy, match="stopped"):
        asked[1].result(0)
    engine.end("c")


def test_closing_fails_what_waits(engine: HeldEngine) -> None:
    backlog = Backlog(engine, places=4, seconds=100)
    asked = [backlog.render(name, PLAN) for name in "abc"]
    backlog.stop()
    backlog.close()
    for each in [*asked, backlog.render("late", PLAN)]:
        with pytest.raises(Busy, match="stopped"):
            each.result(0)
    assert set(engine.begun) == {"a", "b"}
    engine.end("a")  # nobody is there any more


class Held:
    """Work that holds its thread until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        wait(self.go)


def test_work_beyond_the_room_is_refused_until_some_ended(backlog: Backlog) -> None:
    works = [Held() for _ in range(4)]
    tasks = [backlog.submit(small(), work) for work in works]
    with pytest.raises(Busy):
        backlog.submit(small(), Held())
    works[0].go.set()
    tasks[0].result(WAIT_S)
    more = Held()
    last = backlog.submit(small(), more)
    for work in [*works, more]:
        work.go.set()
    for task in [*tasks, last]:
        task.result(WAIT_S)


def test_many_at_once_are_never_more_than_the_room(backlog: Backlog) -> None:
    barrier, go = threading.Barrier(40), threading.Event()

    def ask(_: int) -> Future[None] | None:
        barrier.wait(WAIT_S)
        try:
            return backlog.submit(small(), lambda: wait(go))
        except Busy:
            return None

    with ThreadPoolExecutor(40) as askers:
        tasks = [task for task in askers.map(ask, range(40)) if task is not None]
    assert len(tasks) == 4
    go.set()
    for task in tasks:
        task.result(WAIT_S)


def test_an_error_of_work_is_handed_on_and_its_room_is_free(backlog: Backlog) -> None:
    def fail() -> None:
        raise ValueError("no")

    for _ in range(10):
        with pytest.raises(ValueError, match="no"):
            backlog.submit(small(), fail).result(WAIT_S)


def test_stopping_finishes_what_has_begun_and_cancels_the_rest(engine: HeldEngine) -> None:
    backlog = Backlog(engine, places=100, seconds=1000)
    works = [Held() for _ in range(40)]
    tasks = [backlog.submit(small(), work) for work in works]
    running = 2 * engine.workers + 14
    until(lambda: sum(work.begun.is_set() for work in works) == running)
    stopping = threading.Thread(target=backlog.stop)
    stopping.start()
    for task in tasks[running:]:
        with pytest.raises(CancelledError):
            task.result(WAIT_S)
    for work in works:
        work.go.set()
    stopping.join(WAIT_S)
    assert [task.result(0) for task in tasks[:running]] == [None] * running
    assert not any(work.begun.is_set() for work in works[running:])
    with pytest.raises(RuntimeError, match="stopped"):
        backlog.submit(small(), Held())
    backlog.close()


# --- in a library -------------------------------------------------------------------------------------------------


def test_work_in_the_background_waits_for_what_somebody_asked_for(tmp_path: Path) -> None:
    order: list[int] = []
    first, go = threading.Event(), threading.Event()

    def hold(plan: Plan) -> None:
        order.append(plan.width)
        if plan.width == 10:
            first.set()
            wait(go)

    watched = OneRenderer()
    watched.check = hold
    with Library.open(tmp_path, engine=watched) as library:
        image = library.add(JPG, ident="cat")

        def make(width: int, *, background: bool) -> Callable[[], None]:
            flight = library.make(image, Transform(width=width, format="jpg"), background=background)
            return lambda: flight.landed.result(WAIT_S)

        made = [make(10, background=True)]
        wait(first)
        made += [make(11, background=True), make(12, background=True)]
        made += [make(20, background=False), make(12, background=False)]
        until(lambda: len(library.backlog._renderers.waiting) == 2, WAIT_S)
        go.set()
        for each in made:
            each()
        assert (order[0], order[-1]) == (10, 11), "the one that had begun, and the one that nobody waits for"
        assert sorted(order[1:3]) == [12, 20]
        assert [
            name
            for name, _ in library.make(image, Transform(width=30, format="jpg")).delivered.result(WAIT_S).timings_ms
        ] == ["wait", "render"]


class OneRenderer(WatchedEngine):
    """A watched engine that renders one image at a time."""

    @property
    def workers(self) -> int:
        return 1
