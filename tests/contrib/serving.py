"""The example applications under real servers: `with serving("flask", data) as url`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.server.running import START_S, Server, clean_environment, free_port, kill
from tests.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"
_UVICORN = "uvicorn app:app --port {port} --log-level warning"
COMMANDS = {
    "flask": "flask --app app run --port {port}",
    "fastapi": _UVICORN,
    "asgi": _UVICORN,
    "wheezy": "waitress --listen=127.0.0.1:{port} app:main",
    "wsgi": "gunicorn --bind 127.0.0.1:{port} --threads 4 --log-level warning app:application",
    "wsgi-waitress": "waitress --listen=127.0.0.1:{port} app:application",
}
"""How each example is started: a module of Python's and its arguments; the server is the framework's own."""
PREFIXES = {"asgi": "/media"}
"""Below which path an example has its images, if it is not the root."""


@contextmanager
def serving(name: str, data: Path, **settings: str) -> Iterator[str]:
    """Run an example with its library in `data`; yield the address of its page."""
    port = free_port()
    log = data.parent / f"{name}.log"
    command = [sys.executable, "-m", *COMMANDS[name].format(port=port).split()]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            cwd=EXAMPLES / name.partition("-")[0], env=clean_environment({"data": str(data)} | settings),
        )  # fmt: skip
    server = Server(port=port, data=data, log=log, process=process)
    try:
        until(lambda: _answers(server), START_S, lambda: f"{name} did not start:\n{log.read_text()}")
        yield server.url
        process.terminate()
        process.wait(20)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        kill(server)


def _answers(server: Server) -> bool:
    if server.process.poll() is not None:
        pytest.fail(f"it ended with {server.process.returncode}:\n{server.log.read_text()}")
    try:
        return httpx.get(f"{server.url}/", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
