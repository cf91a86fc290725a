"""What tells workers of jobs, when the broker is there but does not answer."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from amqp.exceptions import NotFound
from kombu.connection import Connection
from redis import Redis
from tests import programs
from tests.waiting import WAIT_S, until

from lazypix.catalog import Catalog
from lazypix.catalog.jobs import NewJob
from lazypix.jobs import messages
from lazypix.jobs.messages import ENOUGH, QUEUE, Sender, make_app


def test_a_broker_that_hangs_is_noticed_and_told_again_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert messages._REDIS["socket_timeout"] == 10.0
    monkeypatch.setitem(messages._REDIS, "socket_timeout", 1.0)
    with programs.redis(tmp_path) as redis, closing(Catalog.sqlite(tmp_path / "catalog.sqlite")) as catalog:
        app = make_app(f"redis://{redis.address}/0")
        with (
            closing(Redis.from_url(f"redis://{redis.address}/0")) as looking,
            closing(Sender(app, catalog.jobs, unheard_s=0.2, resend_every_s=0.2)),
        ):
            catalog.jobs.add([NewJob(kind="work")])
            until(lambda: looking.llen(QUEUE) > 0)
            os.kill(redis.process.pid, signal.SIGSTOP)
            try:
                until(lambda: "the broker is away" in caplog.text, 60)
            finally:
                os.kill(redis.process.pid, signal.SIGCONT)
            told = looking.llen(QUEUE)
            until(lambda: looking.llen(QUEUE) > told, 60)


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_messages_do_not_pile_up_while_nobody_works(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "_PATIENCE_S", WAIT_S)  # none is to be lost, and none sent twice
    for timeout in ("socket_connect_timeout", "socket_timeout"):
        monkeypatch.setitem(messages._REDIS, timeout, WAIT_S)
    with ExitStack() as stack:
        if kind == "redis":
            url = f"redis://{stack.enter_context(programs.redis(tmp_path)).address}/0"
        else:
            url = f"amqp://guest:guest@{request.getfixturevalue('rabbitmq').address}//"
        catalog = stack.enter_context(closing(Catalog.sqlite(tmp_path / "catalog.sqlite")))

        def lying() -> int:
            with Connection(url, connect_timeout=WAIT_S) as connection:  # type: ignore[no-untyped-call]
                if kind == "redis":
                    return int(connection.default_channel.client.llen(QUEUE))
                try:
                    return int(connection.default_channel.queue_declare(QUEUE, passive=True).message_count)
                except NotFound:  # nothing was sent yet
                    return 0

        catalog.jobs.add([NewJob(kind="work") for _ in range(ENOUGH)])
        sender = stack.enter_context(closing(Sender(make_app(url), catalog.jobs, unheard_s=0)))
        for expected in (500, ENOUGH):
            sender.resend()
            until(lambda: lying() == expected, WAIT_S, lambda: str(lying()))  # noqa: B023
        for _ in range(3):
            sender.resend()
        catalog.jobs.add([NewJob(kind="work")])  # what is new is told all the same, behind what was told before
        until(lambda: lying() > ENOUGH, WAIT_S, lambda: str(lying()))
        assert lying() == ENOUGH + 1
