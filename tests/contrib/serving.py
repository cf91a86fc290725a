"""The example applications under real servers: `with serving("flask", data) as url`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.ports import free_port
from tests.server.running import Server, clean_environment, kill
from tests.waiting import until

START_S = 120.0
"""All examples are started at once."""
STOP_S = 60.0
HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
_GUNICORN = "gunicorn --bind 127.0.0.1:{port} --threads 4 --log-level warning"
_UVICORN = "uvicorn --port {port} --log-level warning"
_WAITRESS = "waitress --listen=127.0.0.1:{port}"
COMMANDS = {
    "flask": "flask --app app run --port {port}",
    "fastapi": f"{_UVICORN} app:app",
    "asgi": f"{_UVICORN} app:app",
    "wheezy": f"{_WAITRESS} app:main",
    "wsgi": f"{_GUNICORN} app:application",
}
"""How each example is started: a module of Python's and its arguments; the server is the framework's own."""
BARE = {
    "library-asgi": f"{_UVICORN} bare:asgi",
    "library-gunicorn": f"{_GUNICORN} bare:wsgi",
    "library-waitress": f"{_WAITRESS} bare:wsgi",
}
"""`Library.asgi` and `Library.wsgi`, with nothing around them."""
PREFIXES = {"asgi": "/media"}
"""Below which path an application has its images, if it is not the root."""


@contextmanager
def serving(name: str, data: Path, **settings: str) -> Iterator[str]:
    """Run an application with its library in `data`; yield the address of its page."""
    port = free_port()
    log = data.parent / f"{name}.log"
    command = [sys.executable, "-m", *(COMMANDS | BARE)[name].format(port=port).split()]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            cwd=EXAMPLES / name if name in COMMANDS else HERE, env=clean_environment({"data": str(data)} | settings),
        )  # fmt: skip
    server = Server(port=port, data=data, log=log, process=process)
    try:
        until(lambda: _answers(server), START_S, lambda: f"{name} did not start:\n{log.read_text()}")
        yield server.url
        process.terminate()
        process.wait(STOP_S)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        kill(server)


def _answers(server: Server) -> bool:
    if server.process.poll() is not None:
        pytest.fail(f"it ended with {server.process.returncode}:\n{server.log.read_text()}")
    try:
        return httpx.get(f"{server.url}/", timeout=30).status_code < 500
    except httpx.TransportError:
        return False
