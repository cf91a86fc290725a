"""Two servers behind nginx, restarted in turn under load: nobody notices."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import httpx
from tests.engine.pictures import jpg, quadrants
from tests.fleet.machines import machines, shared_settings
from tests.ports import free_port
from tests.programs import Program
from tests.server.nginx import nginx
from tests.server.running import Server, clean_environment, members, wait_until_ready
from tests.waiting import WAIT_S, until

PICTURE = jpg(quadrants(300, 200))
KEY = "a-key-of-enough-characters"
HEADERS = {"authorization": f"Bearer {KEY}"}


def configuration(data: Path, port: int, servers: list[Server], settings: dict[str, str]) -> str:
    """What `lazypix nginx` prints for these servers."""
    upstreams = [word for server in servers for word in ("--upstream", f"127.0.0.1:{server.port}")]
    done = subprocess.run(
        [sys.executable, "-m", "lazypix", "nginx", "--data", data, "--listen", f"127.0.0.1:{port}",
         "--cache-dir", str(data.parent / "cache"), *upstreams],
        cwd=data.parent, env=clean_environment(settings), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(slots=True)
class Load:
    """What clients ask for, and what they got."""

    url: str
    stop: threading.Event = field(default_factory=threading.Event)
    uploaded: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    answers: int = 0
    numbers: Iterator[int] = field(default_factory=count)

    def check(self, answer: httpx.Response, *accepted: int) -> bool:
        self.answers += 1
        if answer.status_code not in accepted:
            self.wrong.append(f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text[:200]}")
        return answer.status_code in accepted

    def hits(self, client: httpx.Client) -> None:
        self.check(client.get("/image/60x/cat.jpg"), 200)

    def facts(self, client: httpx.Client) -> None:
        self.check(client.get("/info/cat"), 200)

    def new_variants(self, client: httpx.Client) -> None:
        self.check(
            client.get(f"/image/{10 + next(self.numbers) % 280}x,quality={next(self.numbers) % 90 + 1}/cat.jpg"), 200
        )

    def uploads(self, client: httpx.Client) -> None:
        ident = f"new{next(self.numbers)}"
        answer = client.post("/upload", data={"ident": ident}, files={"image": ("a.jpg", PICTURE)}, headers=HEADERS)
        if self.check(answer, 201):
            self.uploaded.append(ident)

    def run(self, ask: Callable[[httpx.Client], None]) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.stop.is_set():
                ask(client)


def restarted(server: Server) -> Server:
    """Stop a server as an operator does, and begin to start it again on its port."""
    command = server.process.args
    assert isinstance(command, list)
    environment = dict(
        entry.split("=", 1)
        for entry in Path(f"/proc/{server.pid}/environ").read_text().split("\0")
        if entry.startswith("LAZYPIX_")
    )
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0, server.log.read_text()
    until(lambda: not members(server.pid), 10, lambda: f"left behind: {members(server.pid)}")
    settings = {name.removeprefix("LAZYPIX_").lower(): value for name, value in environment.items()}
    with server.log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            cwd=server.data.parent, env=clean_environment(settings),
        )  # fmt: skip
    return replace(server, process=process)


def listed(url: str) -> list[str]:
    """The idents of all images, page by page."""
    found: list[str] = []
    while True:
        page = {"limit": "1000"} | ({"before": found[-1]} if found else {})
        answer = httpx.get(f"{url}/images", params=page, headers=HEADERS, timeout=WAIT_S)
        assert answer.status_code == 200, answer.text
        idents = [image["ident"] for image in answer.json()["content"]["images"]]
        if not idents:
            return found
        found += idents


def test_restarting_in_turn_costs_nobody_an_error(
    tmp_path: Path, seaweedfs: Program, new_database: Callable[[], str]
) -> None:
    settings = shared_settings(seaweedfs, new_database(), drain_delay_s="4", renderers="1", api_keys=KEY, urls="open")
    port = free_port()
    folder = tmp_path / "nginx"
    folder.mkdir()
    with machines(tmp_path, 2, **settings) as servers:
        front = configuration(tmp_path / "one", port, servers, settings)
        uploaded = httpx.post(
            f"{servers[0].url}/upload", data={"ident": "cat"}, files={"image": ("a.jpg", PICTURE)}, headers=HEADERS,
            timeout=WAIT_S,
        )  # fmt: skip
        assert uploaded.status_code == 201
        load = Load(f"http://127.0.0.1:{port}")
        with nginx(folder, front, port), ThreadPoolExecutor(4) as clients:
            running = [
                clients.submit(load.run, ask) for ask in (load.hits, load.facts, load.new_variants, load.uploads)
            ]
            try:
                for number in (0, 1, 0, 1):
                    before = len(load.uploaded)
                    servers[number] = restarted(servers[number])
                    wait_until_ready(servers[number])
                    until(lambda: len(load.uploaded) > before, WAIT_S)  # noqa: B023
                until(lambda: load.answers > 100, WAIT_S)
            finally:
                load.stop.set()
            for client in running:
                client.result(60)
            assert load.wrong == []
            assert sorted(listed(load.url)) == sorted(["cat", *load.uploaded])
