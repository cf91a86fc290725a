"""A real nginx for tests."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.server.running import START_S, STOP_S, RawAnswer, program, read_answer
from tests.waiting import WAIT_S, until

AROUND = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    proxy_temp_path {folder}/tmp;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    include {folder}/front.conf;
}}
"""


def command(folder: Path, configuration: str) -> list[str]:
    """Write a configuration for the `http` block into a folder, and return the command that runs nginx with it."""
    (folder / "front.conf").write_text(configuration)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder))
    return [program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]


@contextmanager
def nginx(folder: Path, configuration: str, port: int) -> Iterator[None]:
    """Run nginx in front of a server that is running."""
    process = subprocess.Popen(
        command(folder, configuration), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20).status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers, START_S, lambda: (folder / "error.log").read_text())
        yield
    finally:
        process.terminate()
        process.wait(STOP_S)


def get_raw(port: int, target: str) -> RawAnswer:
    """GET a target that no HTTP library would send as it is."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return read_answer(connection)
