"""Renderer processes: what happens in one, happens to one image only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from tests.engine import pictures as p

from lazypix.engine.renderers import RendererEngine, RendererLimits
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import BrokenImage, Busy, RendererLost, RenderFailed, RenderTimeout, TooLarge, UnsupportedImage
from lazypix.plan import Limits, Plan, Probe, make_plan
from lazypix.transform import Transform

WAIT_S = 60.0
"""Far longer than anything here takes; a future that is never done fails its test."""

# Runs in every renderer: files of certain names do what images should not. As text, because a spawned process cannot
# import the modules of tests.
MISCHIEF = """
import os, signal, time
from pathlib import Path
from lazypix.engine import render

sane = render.render

def mischief(path, plan):
    name = Path(path).stem
    if name == "killer":
        os.kill(os.getpid(), signal.SIGSEGV)  # as a codec with a fault does
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hang":
        time.sleep(3600)
    if name == "hoard":
        bytearray(64 * 1024**3)
    if name == "whoami":
        return str(os.getpid()).encode()
    if name == "slow":
        Path(path).with_suffix(f".{os.getpid()}").touch()
        time.sleep(1)
    return sane(path, plan)

render.render = mischief
"""


@contextmanager
def _engine(processes: int = 1, deadline_s: float = 30, **limits: int) -> Iterator[RendererEngine]:
    engine = RendererEngine(processes, RendererLimits(deadline_s=deadline_s, **limits), partial(exec, MISCHIEF, {}))
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def mischievous() -> Iterator[RendererEngine]:
    with _engine(2) as engine:
        yield engine


@pytest.fixture
def named(tmp_path: Path) -> Callable[[str], str]:
    """A function that makes an image file of a given name."""

    def make(name: str) -> str:
        path = tmp_path / f"{name}.png"
        path.write_bytes(p.encoded(p.quadrants()))
        return str(path)

    return make


def _plan(text: str = "60x", probe: Probe | None = None) -> Plan:
    transform = Transform.parse(text)
    return make_plan(
        transform if transform.format else transform.as_format("png"),
        probe or Probe(format="png", width=120, height=80),
        Limits(),
    )


def _pid(engine: RendererEngine, named: Callable[[str], str]) -> int:
    return int(engine.render(named("whoami"), _plan()).result(WAIT_S))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("text", ["60x", "20x20,fit=cover,format=webp", "rotate=90,format=jpg", "30x,format=avif"])
def test_the_result_is_that_of_threads(
    renderers: RendererEngine, engine: ThreadEngine, named: Callable[[str], str], text: str
) -> None:
    path = named("cat")
    probe = renderers.inspect(path, Limits()).result(WAIT_S)
    assert probe == engine.inspect(path, Limits()).result(WAIT_S)
    plan = _plan(text, probe)
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
        renderers.render(file(picture[:3000]), _plan()).result(WAIT_S)


def test_an_image_that_hangs_is_given_up_and_the_next_one_is_made(named: Callable[[str], str]) -> None:
    with _engine(1, deadline_s=0.5) as engine:
        hanging, behind = engine.render(named("hang"), _plan()), engine.render(named("cat"), _plan())
        with pytest.raises(RenderTimeout, match=r"longer than 0\.5 seconds"):
            hanging.result(WAIT_S)
        assert p.opened(behind.result(WAIT_S)).size == (60, 40)
        assert p.opened(engine.render(named("cat"), _plan()).result(WAIT_S)).size == (60, 40)


def test_the_deadline_does_not_run_while_an_image_waits(named: Callable[[str], str]) -> None:
    with _engine(1, deadline_s=2.5) as engine:
        waiting = [engine.render(named("slow"), _plan()) for _ in range(4)]
        assert all(p.opened(future.result(WAIT_S)).size == (60, 40) for future in waiting)


def test_an_image_that_kills_its_renderer_fails_alone(
    mischievous: RendererEngine, named: Callable[[str], str]
) -> None:
    names = ["cat", "killer", "cat", "cat", "killer", "cat", "cat", "cat"]
    futures = [(name, mischievous.render(named(name), _plan())) for name in names]
    for name, future in futures:
        if name == "killer":
            with pytest.raises(RendererLost, match="died of this image"):
                future.result(WAIT_S)
        else:
            assert p.opened(future.result(WAIT_S)).size == (60, 40)


def test_many_killers_in_a_row_do_not_stop_the_work(mischievous: RendererEngine, named: Callable[[str], str]) -> None:
    for _ in range(5):
        with pytest.raises(RendererLost):
            mischievous.render(named("killer"), _plan()).result(WAIT_S)
    assert p.opened(mischievous.render(named("cat"), _plan()).result(WAIT_S)).size == (60, 40)


def test_more_memory_than_is_allowed_costs_the_image(named: Callable[[str], str]) -> None:
    with _engine(1, memory_bytes=1024**3) as engine:
        with pytest.raises(RendererLost, match="more memory than is allowed"):
            engine.render(named("hoard"), _plan()).result(WAIT_S)
        assert p.opened(engine.render(named("cat"), _plan()).result(WAIT_S)).size == (60, 40)


def test_an_image_too_large_for_the_memory_is_not_called_broken(file: Callable[[bytes], str]) -> None:
    path = file(p.jpg(Image.new("RGB", (7000, 7000))))  # to be turned it is held in memory: 147 megabytes
    probe = Probe(format="jpg", width=7000, height=7000)
    with _engine(1, memory_bytes=180 * 1024**2) as engine, pytest.raises(RendererLost):
        engine.render(path, _plan("rotate=90,format=webp,quality=1", probe)).result(WAIT_S)


def test_a_renderer_is_replaced_after_its_share(named: Callable[[str], str]) -> None:
    with _engine(1, renders=2) as engine:
        pids = [_pid(engine, named) for _ in range(6)]
        assert max(pids.count(pid) for pid in pids) <= 2
        assert len(set(pids)) >= 3


def test_a_renderer_killed_while_idle_is_replaced(named: Callable[[str], str]) -> None:
    with _engine(1) as engine:
        first = _pid(engine, named)
        os.kill(first, signal.SIGKILL)
        _wait_until(lambda: not _is_alive(first))
        assert _pid(engine, named) != first


def test_work_of_renderers_that_somebody_killed_is_done_by_others(
    named: Callable[[str], str], tmp_path: Path
) -> None:
    with _engine(2) as engine:
        futures = [engine.render(named("slow"), _plan()) for _ in range(6)]
        _wait_until(lambda: len(list(tmp_path.glob("slow.*[0-9]"))) == 2)  # both are at work
        for mark in list(tmp_path.glob("slow.*[0-9]")):
            os.kill(int(mark.suffix[1:]), signal.SIGKILL)
        assert all(p.opened(future.result(WAIT_S)).size == (60, 40) for future in futures)


def test_an_image_under_which_every_renderer_is_killed_is_given_up(named: Callable[[str], str]) -> None:
    """As the kernel does when the machine's memory is used up."""
    with _engine(1) as engine:
        with pytest.raises(RendererLost, match="died of this image"):
            engine.render(named("killed"), _plan()).result(WAIT_S)
        assert p.opened(engine.render(named("cat"), _plan()).result(WAIT_S)).size == (60, 40)


def test_closing_leaves_no_process_and_takes_no_work(named: Callable[[str], str]) -> None:
    with _engine(2) as engine:
        pids = {_pid(engine, named) for _ in range(6)}
    _wait_until(lambda: not any(map(_is_alive, pids)))
    with pytest.raises(Busy):
        engine.render(named("cat"), _plan()).result(WAIT_S)


@pytest.mark.parametrize("begun", [True, False], ids=["two at work", "none begun"])
def test_closing_leaves_nobody_waiting(named: Callable[[str], str], tmp_path: Path, begun: bool) -> None:
    """Contract of `Engine.close`: futures that are not done are cancelled or fail."""
    path, plan = named("slow"), _plan()
    with _engine(2) as engine:
        _pid(engine, named)  # the renderers have started
        futures = [engine.render(path, plan) for _ in range(6)]
        if begun:
            _wait_until(lambda: len(list(tmp_path.glob("slow.*[0-9]"))) == 2)
    _, pending = wait(futures, timeout=2)
    assert not pending


def test_closing_at_once_is_fine() -> None:
    RendererEngine(2).close()


def _wait_until(come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not come():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)
