"""The servers under test, each as a context manager that gives its port and its process id."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import free_port, running, wait_for_port

_THUMBOR_CONF = """
LOADER = 'thumbor.loaders.file_loader'
FILE_LOADER_ROOT_PATH = {originals!r}
STORAGE = 'thumbor.storages.no_storage'
ALLOW_UNSAFE_URL = True
QUALITY = 80
WEBP_QUALITY = 80
MAX_PIXELS = 100000000
ALLOW_ANIMATED_GIFS = True
"""
_THUMBOR_RESULTS = """
RESULT_STORAGE = 'thumbor.result_storages.file_storage'
RESULT_STORAGE_FILE_STORAGE_ROOT_PATH = {results!r}
RESULT_STORAGE_STORES_UNSAFE = True
"""
_NGINX_CONF = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 256; }}
http {{
    types {{ image/jpeg jpg; }}
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {cache}
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""
_OPEN_FILE_CACHE = "open_file_cache max=1000;"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server."""

    name: str
    port: int
    pid: int


@contextlib.contextmanager
def lazypix(
    data: Path, folder: Path, *, core: int | None = None, renderers: int = 2, bounded_allocator: bool = True
) -> Iterator[Server]:
    """One server process with its renderers, on the folder `data`."""
    port = free_port()
    environment = {
        "LAZYPIX_DATA": str(data),
        "LAZYPIX_PORT": str(port),
        "LAZYPIX_RENDERERS": str(renderers),
        "LAZYPIX_CONFIG": "",
    }
    if not bounded_allocator:
        environment["LD_PRELOAD"] = ""  # whoever sets this has chosen an allocator: here the C library's, as it comes
    command = [sys.executable, "-m", "benchmarks.serve"]
    yield from _started("lazypix", command, port, folder, core, environment)


@contextlib.contextmanager
def thumbor(
    program: Path, originals: Path, folder: Path, *, processes: int, core: int | None = None, results: bool = False
) -> Iterator[Server]:
    """Thumbor with its file loader; with `results` it keeps what it made in its file storage."""
    port = free_port()
    text = _THUMBOR_CONF.format(originals=str(originals))
    if results:
        text += _THUMBOR_RESULTS.format(results=str(folder / "thumbor-results"))
    conf = folder / f"thumbor-{port}.conf"
    conf.write_text(text)
    command = [str(program), "--ip", "127.0.0.1", "--port", str(port), "--conf", str(conf), "--log-level", "error"]
    yield from _started("thumbor", [*command, "--processes", str(processes)], port, folder, core, {})


@contextlib.contextmanager
def nginx(root: Path, folder: Path, *, core: int | None = None, file_cache: bool = False) -> Iterator[Server]:
    """Nginx with one worker, serving the files below `root`."""
    port = free_port()
    home = folder / f"nginx-{port}"
    home.mkdir()
    folder.chmod(0o755)  # its worker is another user when it is started by root
    conf = home / "nginx.conf"
    cache = _OPEN_FILE_CACHE if file_cache else ""
    conf.write_text(_NGINX_CONF.format(folder=home, root=root, port=port, cache=cache))
    yield from _started("nginx", ["nginx", "-e", f"{home}/start.log", "-c", str(conf)], port, folder, core, {})


def version(program: str | Path, *arguments: str) -> str:
    """Return what a program says its version is, or "" when it cannot be run."""
    try:
        done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def _started(
    name: str, command: list[str], port: int, folder: Path, core: int | None, environment: dict[str, str]
) -> Iterator[Server]:
    log = folder / f"{name}-{port}.log"
    with running(command, log=log, core=core, environment=environment) as pid:
        wait_for_port(port, pid, log)
        yield Server(name=name, port=port, pid=pid)
