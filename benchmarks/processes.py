"""Starting, pinning, measuring and stopping the processes that are measured."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_START_S = 30.0
_STOP_S = 10.0


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], *, log: Path, core: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a command in a process group of its own, on one core if it is given; yield its pid, and stop all of it."""
    if core is not None:
        command = ["taskset", "--cpu-list", str(core), *command]
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever is left of its group
    process.wait(_STOP_S)


def wait_for_port(port: int, pid: int, log: Path) -> None:
    """Wait until something listens.

    Raises:
        RuntimeError: the process ended, or took longer than half a minute.
    """
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if _state(pid) in ("", "Z"):
            break
        time.sleep(0.05)
    raise RuntimeError(f"the server on port {port} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def tree(pid: int) -> list[int]:
    """Return a process and all of its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, []))
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its descendants have used so far, ended ones included."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            # Own time in user mode and in the kernel, and both of the children that have ended.
            total += sum(int(ticks) for ticks in _stat(process)[11:15])
    return total / _TICKS_A_SECOND


def own_cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process itself has used so far."""
    return sum(int(ticks) for ticks in _stat(pid)[11:13]) / _TICKS_A_SECOND


def memory_mb(pid: int) -> float:
    """Return the memory of a process and its descendants: PSS (a shared page is counted once in all), else RSS."""
    total_kb = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            total_kb += _memory_kb(process)
    return total_kb / 1024


def _memory_kb(pid: int) -> int:
    for name, field in (("smaps_rollup", "Pss"), ("status", "VmRSS")):
        with contextlib.suppress(OSError):
            found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/{name}").read_text(), re.MULTILINE)
            if found:
                return int(found[1])
    return 0


def _state(pid: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        return _stat(pid)[0]
    return ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the third, the state, on. Source: proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
