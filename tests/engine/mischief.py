"""Renderers in which files of certain names do what images should not."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lazypix.engine.renderers import RendererEngine, RendererLimits
from lazypix.plan import Limits, Plan, Probe, make_plan
from lazypix.transform import Transform

Named = Callable[[str], str]
"""The fixture `named`: a function that makes an image file of a given name."""

# Runs in every renderer. As text, because a spawned process cannot import the modules of tests.
MISCHIEF = """
import os, signal, struct, time
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from lazypix.engine import render

sane, send = render.render, Connection.send

def send_and_die(self, message):  # the lock of the channel is held
    send(self, message)
    os.kill(os.getpid(), signal.SIGKILL)

def send_half_and_die(self, message):
    data = bytes(ForkingPickler.dumps(message))
    os.write(self.fileno(), struct.pack("!i", len(data)) + data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

def is_first(path):
    try:
        Path(path).with_suffix(".seen").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def mischief(path, plan):
    name = Path(path).stem
    if name == "killer":
        os.kill(os.getpid(), signal.SIGSEGV)  # as a codec with a fault does
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "killed when sent" and is_first(path):
        Connection.send = send_and_die
    if name == "killed when half sent" and is_first(path):
        Connection.send = send_half_and_die
        return bytes(4 * 1024**2)
    if name == "hang":
        time.sleep(3600)
    if name == "hoard":
        bytearray(64 * 1024**3)
    if name == "whoami":
        return str(os.getpid()).encode()
    if name.startswith("slow"):
        Path(path).with_suffix(f".{os.getpid()}").touch()
        time.sleep(1)
        Path(path).with_suffix(".finished").touch()
    if name == "held":
        Path(path).with_suffix(f".{os.getpid()}").touch()
        while not Path(path).with_suffix(".go").exists():
            time.sleep(0.01)
        Path(path).with_suffix(".finished").touch()
    return sane(path, plan)

render.render = mischief
"""


@contextmanager
def mischievous_engine(processes: int = 1, deadline_s: float = 30, **limits: int) -> Iterator[RendererEngine]:
    engine = RendererEngine(processes, RendererLimits(deadline_s=deadline_s, **limits), partial(exec, MISCHIEF, {}))
    try:
        yield engine
    finally:
        engine.close()


def planned(text: str = "60x", probe: Probe | None = None) -> Plan:
    transform = Transform.parse(text)
    return make_plan(
        transform if transform.format else transform.as_format("png"),
        probe or Probe(format="png", width=120, height=80),
        Limits(),
    )


def pid_of(engine: RendererEngine, named: Named) -> int:
    """The pid of a renderer."""
    return int(engine.render(named("whoami"), planned()).result(60))


def pids() -> set[int]:
    """The pids of all renderers of this process, also those that are starting."""
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def begun_by(folder: Path, name: str = "slow") -> list[int]:
    """The pids of the renderers that began with the image of this name: a "slow" one, or the "held" one."""
    return [int(mark.suffix[1:]) for mark in folder.glob(f"{name}.*[0-9]")]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
