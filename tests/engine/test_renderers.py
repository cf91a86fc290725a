"""Renderer processes: what happens in one, happens to one image only."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from tests.engine import pictures as p
from tests.engine.mischief import Named, begun_by, is_alive, mischievous_engine, pid_of, pids, planned
from tests.waiting import WAIT_S, until
from tests.waiting import wait as wait_for

from lazypix.engine.renderers import RendererEngine, RendererLimits
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import BrokenImage, Busy, RendererLost, RenderFailed, RenderTimeout, TooLarge, UnsupportedImage
from lazypix.plan import Limits, Probe

SOON_S = 40.0
"""Less than pebble waits for the lock of a channel, and more than it takes to start a renderer on a busy machine."""


@pytest.fixture
def mischievous() -> Iterator[RendererEngine]:
    with mischievous_engine(2) as engine:
        yield engine


@pytest.mark.parametrize("text", ["60x", "20x20,fit=cover,format=webp", "rotate=90,format=jpg", "30x,format=avif"])
def test_the_result_is_that_of_threads(
    renderers: RendererEngine, engine: ThreadEngine, named: Named, text: str
) -> None:
    path = named("cat")
    probe = renderers.inspect(path, Limits()).result(WAIT_S)
    assert probe == engine.inspect(path, Limits()).result(WAIT_S)
    plan = planned(text, probe)
    assert renderers.render(path, plan).result(WAIT_S) == engine.render(path, plan).result(WAIT_S)


def test_errors_are_those_of_threads(
    renderers: RendererEngine, engine: ThreadEngine, file: Callable[[bytes], str]
) -> None:
    picture = p.encoded(p.noise(60, 40))
    for data, kind in ((b"hello", UnsupportedImage), (picture[:3000], BrokenImage), (p.bomb(), TooLarge)):
        path = file(data)
        texts = []
        for each in (renderers, engine):
            with pytest.raises(kind) as caught:
                each.inspect(path, Limits()).result(WAIT_S)
            texts.append(str(caught.value))
        assert texts[0] == texts[1]
    with pytest.raises(RenderFailed):
        renderers.render(file(picture[:3000]), planned()).result(WAIT_S)


def test_an_image_that_hangs_is_given_up_and_the_next_one_is_made(named: Named) -> None:
    with mischievous_engine(1, deadline_s=5) as engine:
        hanging, behind = engine.render(named("hang"), planned()), engine.render(named("cat"), planned())
        with pytest.raises(RenderTimeout, match=r"longer than 5 seconds"):
            hanging.result(WAIT_S)
        assert p.opened(behind.result(WAIT_S)).size == (60, 40)
        assert p.opened(engine.render(named("cat"), planned()).result(WAIT_S)).size == (60, 40)


def test_the_deadline_does_not_run_while_an_image_waits(named: Named) -> None:
    with mischievous_engine(1, deadline_s=6) as engine:
        waiting = [engine.render(named("slow"), planned()) for _ in range(8)]
        assert all(p.opened(future.result(WAIT_S)).size == (60, 40) for future in waiting)


def test_an_image_that_kills_its_renderer_fails_alone(mischievous: RendererEngine, named: Named) -> None:
    names = ["cat", "killer", "cat", "cat", "killer", "cat", "cat", "cat"]
    futures = [(name, mischievous.render(named(name), planned())) for name in names]
    for name, future in futures:
        if name == "killer":
            with pytest.raises(RendererLost, match="died of this image"):
                future.result(WAIT_S)
        else:
            assert p.opened(future.result(WAIT_S)).size == (60, 40)


def test_many_killers_in_a_row_do_not_stop_the_work(mischievous: RendererEngine, named: Named) -> None:
    for _ in range(5):
        with pytest.raises(RendererLost):
            mischievous.render(named("killer"), planned()).result(WAIT_S)
    assert p.opened(mischievous.render(named("cat"), planned()).result(WAIT_S)).size == (60, 40)


def test_more_memory_than_is_allowed_costs_the_image(named: Named) -> None:
    with mischievous_engine(1, memory_bytes=1024**3) as engine:
        with pytest.raises(RendererLost, match="more memory than is allowed"):
            engine.render(named("hoard"), planned()).result(WAIT_S)
        assert p.opened(engine.render(named("cat"), planned()).result(WAIT_S)).size == (60, 40)


def test_an_image_too_large_for_the_memory_is_not_called_broken(file: Callable[[bytes], str]) -> None:
    path = file(p.jpg(Image.new("RGB", (7000, 7000))))  # to be turned it is held in memory: 147 megabytes
    probe = Probe(format="jpg", width=7000, height=7000)
    with mischievous_engine(1, memory_bytes=180 * 1024**2) as engine, pytest.raises(RendererLost):
        engine.render(path, planned("rotate=90,format=webp,quality=1", probe)).result(WAIT_S)


def test_a_renderer_is_replaced_after_its_share(named: Named) -> None:
    with mischievous_engine(1, renders=2) as engine:
        seen = [pid_of(engine, named) for _ in range(6)]
        assert max(seen.count(pid) for pid in seen) <= 2
        assert len(set(seen)) >= 3


def test_a_renderer_killed_while_idle_is_replaced(named: Named) -> None:
    with mischievous_engine(1) as engine:
        first = pid_of(engine, named)
        os.kill(first, signal.SIGKILL)
        until(lambda: not is_alive(first))
        assert pid_of(engine, named) != first


def test_a_renderer_killed_while_idle_is_replaced_before_anybody_needs_it() -> None:
    others = pids()
    with mischievous_engine(2):
        first, second = pids() - others  # they are started at once, too
        os.kill(first, signal.SIGKILL)
        until(lambda: len(pids() - others - {first}) == 2)
        assert second in pids()


@pytest.mark.parametrize("name", ["killed when sent", "killed when half sent"])
def test_a_renderer_killed_while_it_sends_holds_up_nobody(named: Named, tmp_path: Path, name: str) -> None:
    """The lock of its channel stays locked, and half a message is in its pipe."""
    others = pids()
    with mischievous_engine(2) as engine:
        before = pids() - others
        meanwhile = engine.render(named("held"), planned())
        until(lambda: len(begun_by(tmp_path, "held")) == 1, WAIT_S)
        killed = engine.render(named(name), planned())
        until((tmp_path / f"{name}.seen").exists, WAIT_S)  # by the other renderer
        (tmp_path / "held.go").touch()
        behind = [engine.render(named("cat"), planned()) for _ in range(20)]
        assert all(p.opened(future.result(SOON_S)).size == (60, 40) for future in [meanwhile, killed, *behind])
        until(lambda: len(pids() - others) == 2)
        assert pids() & before == set(begun_by(tmp_path, "held"))
        assert p.opened(engine.render(named("cat"), planned()).result(SOON_S)).size == (60, 40)


def test_work_of_renderers_that_somebody_killed_is_done_by_others(named: Named, tmp_path: Path) -> None:
    with mischievous_engine(2) as engine:
        futures = [engine.render(named("held"), planned()) for _ in range(6)]
        until(lambda: len(begun_by(tmp_path, "held")) == 2, WAIT_S)  # both are at work
        for pid in begun_by(tmp_path, "held"):
            os.kill(pid, signal.SIGKILL)
        (tmp_path / "held.go").touch()
        assert all(p.opened(future.result(WAIT_S)).size == (60, 40) for future in futures)


def test_an_image_under_which_every_renderer_is_killed_is_given_up(named: Named) -> None:
    """As the kernel does when the machine's memory is used up."""
    with mischievous_engine(1) as engine:
        with pytest.raises(RendererLost, match="died of this image"):
            engine.render(named("killed"), planned()).result(WAIT_S)
        assert p.opened(engine.render(named("cat"), planned()).result(WAIT_S)).size == (60, 40)


def test_where_no_renderer_starts_work_is_refused_until_one_does(named: Named, tmp_path: Path) -> None:
    able = tmp_path / "able"
    prepare = partial(exec, f"import os; os.path.exists({str(able)!r}) or os._exit(1)", {})
    with closing(RendererEngine(2, prepare=prepare)) as engine:
        for _ in range(2):
            with pytest.raises(Busy, match="The renderers are not available"):
                engine.render(named("cat"), planned()).result(WAIT_S)
        able.touch()
        until(lambda: engine.render(named("cat"), planned()).exception(WAIT_S) is None, WAIT_S)


def test_a_renderer_that_cannot_be_started_for_want_of_descriptors_is_when_there_are_some(
    named: Named, caplog: pytest.LogCaptureFixture
) -> None:
    with mischievous_engine(1) as engine:
        pid = pid_of(engine, named)
        with no_more_descriptors():
            os.kill(pid, signal.SIGKILL)
            until(lambda: "Too many open files" in caplog.text)
        assert p.opened(engine.render(named("cat"), planned()).result(WAIT_S)).size == (60, 40)


class Unsendable:
    """Does nothing in a renderer, if it comes there."""

    refuses = False

    def __reduce__(self) -> tuple[object, ...]:
        if self.refuses:
            raise ValueError("not today")
        return partial, (int,)


def test_a_place_is_filled_whatever_a_start_failed_with(named: Named, caplog: pytest.LogCaptureFixture) -> None:
    others, prepare, path = pids(), Unsendable(), named("cat")
    with closing(RendererEngine(1, prepare=prepare)) as engine:  # type: ignore[arg-type]
        engine.inspect(path, Limits()).result(WAIT_S)
        prepare.refuses = True
        os.kill((pids() - others).pop(), signal.SIGKILL)
        until(lambda: "not today" in caplog.text)
        prepare.refuses = False
        assert engine.inspect(path, Limits()).result(WAIT_S).width == 120


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# --- the queue ----------------------------------------------------------------------------------------------------


def test_work_is_done_in_the_order_in_which_it_came(named: Named) -> None:
    done: list[int] = []
    with mischievous_engine(1) as engine:
        futures = [engine.render(named("cat"), planned()) for _ in range(20)]
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, number=number: done.append(number))  # type: ignore[misc]
        wait(futures, WAIT_S)
    assert done == list(range(20))


def test_work_that_nobody_wants_any_more_is_not_begun_and_what_is_begun_goes_on(named: Named, tmp_path: Path) -> None:
    with mischievous_engine(1) as engine:
        held, waiting = engine.render(named("held"), planned()), engine.render(named("slow"), planned())
        until(lambda: len(begun_by(tmp_path, "held")) == 1, WAIT_S)
        assert held.cancel()
        assert waiting.cancel()
        (tmp_path / "held.go").touch()
        assert [pid_of(engine, named)] == begun_by(tmp_path, "held")
        assert (tmp_path / "held.finished").exists()
        assert not begun_by(tmp_path, "slow")
        with pytest.raises(CancelledError):
            held.result(WAIT_S)


def test_much_quick_work_that_is_asked_for_when_other_work_is_done_takes_no_deeper_stack(
    renderers: RendererEngine,
) -> None:
    depths: list[int] = []
    finished = threading.Event()

    def ask_again(_: Future[Probe]) -> None:
        depths.append(_depth())
        if len(depths) < 1000:
            renderers.inspect("/no/such/file", Limits()).add_done_callback(ask_again)
        else:
            finished.set()

    for _ in range(2):
        renderers.inspect("/no/such/file", Limits()).add_done_callback(ask_again)
    wait_for(finished)
    assert max(depths) < 50


def _depth() -> int:
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


# --- closing ------------------------------------------------------------------------------------------------------


def test_closing_leaves_no_process_and_takes_no_work(named: Named) -> None:
    with mischievous_engine(2) as engine:
        seen = {pid_of(engine, named) for _ in range(6)}
    until(lambda: not any(map(is_alive, seen)))
    with pytest.raises(Busy):
        engine.render(named("cat"), planned()).result(WAIT_S)


@pytest.mark.parametrize("begun", [True, False], ids=["two at work", "none begun"])
def test_closing_leaves_nobody_waiting(named: Named, tmp_path: Path, begun: bool) -> None:
    """Contract of `Engine.close`: futures that are not done are cancelled or fail."""
    path, plan = named("held"), planned()
    with mischievous_engine(2) as engine:
        pid_of(engine, named)  # a renderer has started
        futures = [engine.render(path, plan) for _ in range(6)]
        if begun:
            until(lambda: len(begun_by(tmp_path, "held")) == 2, WAIT_S)
    _, pending = wait(futures, timeout=WAIT_S)
    assert not pending


STARTING = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from lazypix.engine.renderers import RendererEngine

def until_they_start(number):
    while len(list(Path(sys.argv[1]).iterdir())) < number:
        time.sleep(0.01)

if __name__ == "__main__":
    engine = RendererEngine(2)
    {then}
else:  # a renderer comes here before it looks for its channel; one that is slow to end may still come to that
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(0.5)
"""


@pytest.mark.parametrize(
    "then",
    [
        "engine.close()",
        "until_they_start(2); engine.close()",
        "until_they_start(2); multiprocessing.active_children()[0].kill(); until_they_start(3); engine.close()",
        "until_they_start(2)",
    ],
    ids=["closed at once", "closed when all are starting", "closed when one is replaced", "never closed"],
)
def test_renderers_that_are_ended_while_they_start_say_nothing(tmp_path: Path, then: str) -> None:
    program, marks = tmp_path / "program.py", tmp_path / "marks"
    program.write_text(STARTING.format(then=then))
    marks.mkdir()
    done = subprocess.run(
        [sys.executable, program, marks], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_closing_at_once_is_fine() -> None:
    others = pids()
    RendererEngine(2).close()
    assert pids() == others


def test_renderers_that_hang_while_they_start_are_not_waited_for(named: Named) -> None:
    hanging = partial(exec, "import time; time.sleep(3600)", {})
    with closing(RendererEngine(1, RendererLimits(start_s=0.5), hanging)) as engine:
        waiting = engine.render(named("cat"), planned())
        with pytest.raises(Busy, match="they do not start"):
            waiting.result(WAIT_S)


def test_whoever_takes_long_with_an_answer_holds_up_nobody_else(named: Named) -> None:
    with mischievous_engine(2) as engine:
        wait([engine.render(named("slow"), planned()) for _ in range(2)], WAIT_S)  # both have started
        taken, go = threading.Event(), threading.Event()

        def take(_: Future[bytes]) -> None:
            taken.set()
            wait_for(go)

        first = engine.render(named("slow"), planned())
        first.add_done_callback(take)
        wait_for(taken)
        try:
            assert p.opened(engine.render(named("cat"), planned()).result(SOON_S)).size == (60, 40)
        finally:
            go.set()


INTERRUPTED = """
import random, signal, sys, time
from lazypix.engine.renderers import RendererEngine
from lazypix.plan import Limits

if __name__ == "__main__":
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # its timer is exact
    engine, path = RendererEngine(1), sys.argv[1]
    engine.inspect(path, Limits()).result(60)
    for _ in range(300):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 6e-4))
            for _ in range(3):
                engine.inspect(path, Limits())
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
        engine.inspect(path, Limits()).result(60)
    engine.close()
"""


def test_ctrl_c_in_the_thread_that_asks_stops_nobody_else(named: Named, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, program, named("cat")], capture_output=True, text=True, timeout=WAIT_S * 3, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
