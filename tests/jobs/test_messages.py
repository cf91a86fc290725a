"""What tells workers of jobs, when the broker is there but does not answer."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis
from tests import programs
from tests.waiting import until

from lazypix.catalog import Catalog
from lazypix.catalog.jobs import NewJob
from lazypix.jobs import messages
from lazypix.jobs.messages import QUEUE, Sender, make_app


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
