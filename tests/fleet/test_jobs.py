"""Jobs on Celery with real brokers: whatever is killed, emptied or doubled, each is carried out, and seen once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from kombu.connection import Connection
from tests import programs
from tests.engine.pictures import jpg, noise
from tests.fleet.workers import Worker, celery
from tests.ports import free_port
from tests.programs import Program
from tests.server.running import Server, running
from tests.waiting import until

from lazypix import Library
from lazypix.catalog.jobs import SOON, NewJob
from lazypix.engine.idle import IdleEngine
from lazypix.jobs.messages import JOB, QUEUE, make_app
from lazypix.orders import warm_jobs
from lazypix.transform import Transform

PICTURE = jpg(noise(400, 300))
NEVER_S = 3600.0
"""A lease that ends in no test by itself."""
DONE_S = 120.0
"""A worker that lost its broker tries to reach it again after ever longer pauses."""


@dataclass(kw_only=True)
class Fleet:
    """A broker, a server that tells workers of jobs, and the library that both work on."""

    kind: str
    folder: Path
    port: int
    library: Library
    stack: ExitStack = field(default_factory=ExitStack)
    broker: Program
    server: Server
    running: Worker | None = None

    @property
    def url(self) -> str:
        return broker_url(self.kind, self.port)

    def worker(self) -> Worker:
        """Return the worker that runs, with one forked process; a new one when the last was killed."""
        if self.running is None or self.running.process.poll() is not None:
            self.running = self._new_worker()
        return self.running

    def replace_worker(self, **different: str) -> Worker:
        """Kill the worker that runs, if any, and return one with other settings."""
        if self.running is not None:
            self.running.kill()
        self.running = self._new_worker(**different)
        return self.running

    def _new_worker(self, **different: str) -> Worker:
        own = settings(self.kind, self.port) | different
        return self.stack.enter_context(celery(self.folder, "worker", "-c", "1", "-P", "prefork", **own))

    def upload(self, *sizes: str) -> str:
        return self.server.upload(PICTURE, sizes=",".join(sizes))

    def start_broker(self) -> None:
        self.broker = self.stack.enter_context(run_broker(self.kind, self.folder, self.port))

    def empty_broker(self) -> None:
        with Connection(self.url) as connection:  # type: ignore[no-untyped-call]
            if self.kind == "redis":
                connection.default_channel.client.flushall()
            else:
                connection.default_channel.queue_purge(QUEUE)

    @contextmanager
    def held_up(self, ident: str, size: str) -> Iterator[None]:
        """Keep whoever makes this size from ending, as if another process made it; give when it has begun."""
        transform = Transform.parse(size).as_format("jpg")
        with self.library.locks.hold(self.library.shelf.key(ident, transform), patience_s=0) as held:
            assert held
            self.library.catalog.jobs.add(warm_jobs(ident, [transform]))
            until(lambda: self.states(ident) == ["running"], DONE_S)
            yield

    def states(self, ident: str) -> list[str]:
        return [job.state for job in self.library.catalog.jobs.find(ident=ident)]

    def all_done(self, ident: str, number: int) -> None:
        """Wait until nothing is left to do for an image; each of its sizes must have been made."""
        jobs = self.library.catalog.jobs
        until(lambda: self.states(ident) == [], DONE_S, lambda: str(jobs.find(ident=ident)))
        assert len(self.library.variants(ident)) == number


def settings(kind: str, port: int) -> dict[str, str]:
    return {
        "jobs": "celery", "broker": broker_url(kind, port), "job_lease_s": "6", "job_resend_s": "1", "renderers": "1",
    }  # fmt: skip


def broker_url(kind: str, port: int) -> str:
    return f"redis://127.0.0.1:{port}/0" if kind == "redis" else f"amqp://guest:guest@127.0.0.1:{port}//"


def run_broker(kind: str, folder: Path, port: int) -> AbstractContextManager[Program]:
    return (programs.redis if kind == "redis" else programs.rabbitmq)(folder, port=port)


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp(request.param)
    port = free_port()
    with ExitStack() as stack:
        broker = stack.enter_context(run_broker(request.param, folder, port))
        server = stack.enter_context(running(folder / "data", **settings(request.param, port)))
        library = stack.enter_context(Library.open(folder / "data", engine=IdleEngine(), tidies=False))
        yield Fleet(
            kind=request.param, folder=folder, port=port, library=library, stack=stack, broker=broker, server=server
        )


def test_messages_that_are_doubled_foreign_or_malformed_do_nothing(fleet: Fleet) -> None:
    ident = fleet.upload("40x30")
    ids = [job.id for job in fleet.library.catalog.jobs.find(ident=ident)]
    fleet.library.catalog.jobs.add(warm_jobs(ident, [Transform.parse("41x")]))  # nobody is told of it yet
    app = make_app(fleet.url)
    for strange in (
        [ids[0]],
        [ids[0]],
        ["0" * 32],
        ["../x"],
        [None],
        [{"id": 1}],
        [],
        ids * 3,
        [["a"]],
        ["x" * 9999],
    ):
        app.send_task(JOB, args=strange)
    app.send_task(JOB, kwargs={"kind": "warm"})
    app.send_task("os.system", args=["true"])
    with Connection(fleet.url) as connection:  # type: ignore[no-untyped-call]
        for body, of_type in (
            (b"\x80\x04]", "application/x-python-serialize"),
            (b"{", "application/json"),
            (b"", "x"),
        ):
            headers = {"task": JOB, "id": "1"}
            connection.Producer().publish(
                body, routing_key=QUEUE, content_type=of_type, content_encoding="binary", headers=headers
            )
        connection.Producer().publish(json.dumps({"a": 1}), routing_key=QUEUE, content_type="application/json")
    app.close()
    worker = fleet.worker()
    fleet.all_done(ident, 2)
    variant = fleet.library.variants(ident)[0]
    fleet.all_done(fleet.upload("42x30"), 1)
    assert fleet.library.variants(ident)[0] == variant
    until(lambda: "a message that is none of ours was thrown away" in worker.log.read_text())


def test_a_pool_process_killed_in_the_middle_of_a_job(fleet: Fleet) -> None:
    worker, ident = fleet.worker(), fleet.upload()
    with fleet.held_up(ident, "50x"):
        worker.kill_pool()
    fleet.all_done(ident, 1)


def test_what_is_more_urgent_overtakes_the_messages_before_it_whatever_its_lane(fleet: Fleet) -> None:
    fleet.worker()
    rows, ident = fleet.library.catalog.jobs, fleet.upload()
    with fleet.held_up(ident, "54x"):
        other = fleet.upload(*(f"{100 + number}x30" for number in range(4)))
        rows.add([NewJob(kind="sweep", unique_key="urgent", priority=SOON)])
        (urgent,) = [job for job in rows.find(kind="sweep") if job.priority == SOON]
    fleet.all_done(other, 4)
    until(lambda: urgent.id in [job.id for job in rows.find(kind="sweep", state="later")], DONE_S)
    (swept_at,) = [job.due - timedelta(seconds=600) for job in rows.find(kind="sweep") if job.id == urgent.id]
    rows.drop(ids=[urgent.id])
    made_at = sorted(variant.created for variant in fleet.library.catalog.variants.of(other))
    assert swept_at < made_at[1], "one at most was begun before it was known"


def test_a_broker_that_is_emptied_by_hand(fleet: Fleet) -> None:
    fleet.worker()
    ident = fleet.upload()
    with fleet.held_up(ident, "52x"):
        for number in range(5):
            other = fleet.upload(f"{60 + number}x30", f"{70 + number}x30")
        fleet.empty_broker()
    fleet.all_done(ident, 1)
    fleet.all_done(other, 2)
    until(lambda: "warm" not in fleet.library.catalog.jobs.count(), DONE_S)


def test_a_broker_killed_under_a_worker_holds_up_no_upload_and_is_told_when_it_is_back(fleet: Fleet) -> None:
    fleet.worker()
    ident = fleet.upload()
    with fleet.held_up(ident, "53x"):
        sent = fleet.upload("90x30", "91x30")
        fleet.broker.kill()
        begun = time.monotonic()
        idents = [fleet.upload("80x30") for _ in range(3)]
        assert time.monotonic() - begun < 20, "nothing of it waits for the broker"
        assert [fleet.states(each) for each in idents] == [["waiting"]] * 3
        fleet.start_broker()
    fleet.all_done(ident, 1)
    fleet.all_done(sent, 2)
    for each in idents:
        fleet.all_done(each, 1)


def test_a_whole_worker_killed_in_the_middle_of_a_job(fleet: Fleet) -> None:
    worker, ident = fleet.replace_worker(job_lease_s=f"{NEVER_S:g}"), fleet.upload()
    rows = fleet.library.catalog.jobs
    with fleet.held_up(ident, "51x"):
        (job,) = rows.find(ident=ident)
        worker.kill()
        fleet.worker()
        assert rows.find(ident=ident) == [job], "it is the dead worker's until its lease ends"
        assert rows.renew(job, lease_s=0), "the lease ends now"
    fleet.all_done(ident, 1)
