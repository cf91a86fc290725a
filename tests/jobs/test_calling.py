"""Callbacks as jobs: told until they are taken, given up where they must not go, and once for a whole batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.engine.pictures import jpg, quadrants
from tests.receiving import Receiver, receiving
from tests.waiting import WAIT_S
from tests.wrapped import WrappedStore

from lazypix import Library
from lazypix.catalog.job_values import Job
from lazypix.engine.threads import ThreadEngine
from lazypix.errors import RenderFailed
from lazypix.jobs.calling import LANE, calling, with_query
from lazypix.jobs.carrier import Carrier
from lazypix.jobs.replicating import LANE as REPLICAS
from lazypix.jobs.replicating import replicating
from lazypix.orders import Wish
from lazypix.outbound.client import OutboundClient
from lazypix.outbound.rules import Rules
from lazypix.replicas.replica import Replica
from lazypix.signing.messages import ID, SIGNATURE
from lazypix.stores.memory import MemoryStore

YEARS_S = 1e9
"""A wait is random, up to this."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def carry_out(library: Library, port: int, *lanes: str, allowed: tuple[str, ...] = ("127.0.0.1",)) -> list[Job]:
    """Carry out the jobs that wait; return those that are left. What fails is not tried again."""
    client = OutboundClient(Rules.of(allowed, [port]), connect_s=WAIT_S, total_s=WAIT_S)
    kinds = [calling(library, client, [], "POST"), *(replicating(library, each) for each in library.replicas)]
    carrier = Carrier(
        library.catalog.jobs, [replace(kind, first_wait_s=YEARS_S, longest_wait_s=YEARS_S) for kind in kinds]
    )
    try:
        while (job := carrier.take(lanes or (LANE, REPLICAS))) is not None:
            carrier.carry_out(job)
    finally:
        carrier.close()
    return library.catalog.jobs.find()


def call(library: Library, url: str) -> None:
    image = library.add(jpg(quadrants()))
    library.order(image, Wish(callback=url, told={"sizes": []}))


def test_without_anything_else_to_do_it_is_told_at_once_and_unsigned(library: Library, receiver: Receiver) -> None:
    call(library, receiver.url)
    assert carry_out(library, receiver.port) == []
    (request,) = receiver.requests
    assert request.headers[ID] == json.loads(request.body)["id"]
    assert SIGNATURE not in request.headers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
def test_it_is_given_up_at_once_where_it_must_not_go(library: Library, receiver: Receiver, host: str) -> None:
    call(library, f"http://{host}:{receiver.port}/?token=hidden")
    (job,) = carry_out(library, receiver.port, allowed=())
    assert (job.state, job.attempts) == ("dead", 1)
    assert "loopback" in (job.error or "")
    assert "hidden" not in (job.error or "")
    assert receiver.requests == []


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
def test_what_was_not_taken_is_told_again(library: Library, receiver: Receiver, status: int) -> None:
    receiver.statuses[:] = [status]
    call(library, receiver.url)
    (job,) = carry_out(library, receiver.port)
    assert job.state == "later"
    assert str(status) in (job.error or "")


@pytest.mark.parametrize("status", [200, 202, 204, 410])
def test_what_was_taken_or_is_not_wanted_any_more_is_not(library: Library, receiver: Receiver, status: int) -> None:
    receiver.statuses[:] = [status]
    call(library, receiver.url)
    assert carry_out(library, receiver.port) == []
    assert len(receiver.requests) == 1


def test_it_waits_for_the_replicas_and_says_which_of_them_failed(tmp_path: Path, receiver: Receiver) -> None:
    class Refusing(WrappedStore):
        def before(self, verb: str, key: str) -> None:
            raise RenderFailed("refused for good")

    replicas = [Replica(name="good", store=MemoryStore()), Replica(name="bad", store=Refusing(MemoryStore()))]
    with Library.open(tmp_path / "library", engine=ThreadEngine(2), replicas=replicas) as library:
        with library.incoming.new() as incoming:
            incoming.copy(jpg(quadrants()))
            wish = Wish(callback=receiver.url, told={"sizes": [["9", "9"]]})
            library.add_incoming(incoming, jobs=lambda image: library.orders.wished(image.ident, wish))
        left = carry_out(library, receiver.port, LANE)
        assert sorted(job.state for job in left) == ["held", "waiting", "waiting"]
        assert receiver.requests == []
        (dead,) = carry_out(library, receiver.port)
        assert (dead.kind, dead.state) == ("replicate:bad", "dead")
        (request,) = receiver.requests
        said = json.loads(request.body)
        assert (said["replicas"], said["sizes"]) == ({"good": "done", "bad": "failed"}, [["9", "9"]])


def test_what_failed_in_an_earlier_sync_did_not_in_this_one(tmp_path: Path, receiver: Receiver) -> None:
    class Refusing(WrappedStore):
        refuses = True

        def before(self, verb: str, key: str) -> None:
            if self.refuses:
                raise RenderFailed("refused for good")

    store = Refusing(MemoryStore())
    with Library.open(tmp_path, engine=ThreadEngine(2), replicas=[Replica(name="one", store=store)]) as library:
        image = library.add(jpg(quadrants()))
        for refuses in (True, False):
            store.refuses = refuses
            library.order(image, Wish(callback=receiver.url))
            carry_out(library, receiver.port)
        told = [json.loads(request.body)["replicas"] for request in receiver.requests]
        assert told == [{"one": "failed"}, {"one": "done"}]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a.test", "http://a.test?ident=cat&"), ("http://a.test/b?c=d", "http://a.test/b?c=d&ident=cat&"),
        ("http://a.test/b?#e", "http://a.test/b?ident=cat&"),
    ],
)  # fmt: skip
def test_a_query_is_put_behind_the_one_that_is_there(url: str, expected: str) -> None:
    said = {"ident": "cat", "id": "m", "timestamp": "t", "sizes": [["1", "<2"]], "replicas": {"one": "done"}}
    found, query = with_query(url, said)
    assert found.startswith(expected)
    assert found.endswith(query)
    assert "sizes=1x%3C2" in query
    assert "replicas=one%3Adone" in query
