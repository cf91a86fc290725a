"""Jobs that tell a callback's URL that a sync is done."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlencode

from lazypix.catalog.job_values import Job
from lazypix.errors import Unreachable
from lazypix.jobs import Kind
from lazypix.library import Library
from lazypix.orders import CALLBACK, replicate
from lazypix.outbound.client import OutboundClient
from lazypix.signing.messages import sign

LANE = "callbacks"
_ATTEMPTS, _FIRST_WAIT_S = 12, 5.0
_MOST_DEAD = 10_000
_GONE = 410  # the receiver wants no more of this; Source: Standard Webhooks, "Deliverability and reliability"


def calling(
    library: Library, client: OutboundClient, secrets: Sequence[bytes], method: Literal["POST", "GET"]
) -> Kind:
    """Return the kind of the jobs that call back."""
    carry_out = Calling(library, client, secrets, method).carry_out
    return Kind(name=CALLBACK, carry_out=carry_out, lane=LANE, attempts=_ATTEMPTS, first_wait_s=_FIRST_WAIT_S)


class Calling:
    """Tells receivers. Safe to use from many threads."""

    def __init__(
        self, library: Library, client: OutboundClient, secrets: Sequence[bytes], method: Literal["POST", "GET"]
    ) -> None:
        self._library = library
        self._client = client
        self._secrets = secrets
        self._method = method

    def carry_out(self, job: Job) -> None:
        """Tell the receiver of a job.

        Raises:
            AddressRefused: its URL leads where nothing is told.
            Unreachable: it did not take the message; it is told again.
        """
        delivery, url = str(job.payload["id"]), str(job.payload["url"])
        said = self._said(job, delivery)
        if self._method == "POST":
            body = json.dumps(said, separators=(",", ":")).encode()
            headers = {"content-type": "application/json"}
            reply = self._client.send("POST", url, headers=headers | self._signed(delivery, body), body=body)
        else:
            url, query = with_query(url, said)
            reply = self._client.send("GET", url, headers=self._signed(delivery, query.encode()))
        if not reply.is_success and reply.status != _GONE:
            raise Unreachable(f"The callback of {job.ident} was answered with {reply.status}; accepted: 200 to 299")

    def _said(self, job: Job, delivery: str) -> dict[str, Any]:
        told = dict(job.payload.get("told", {}))
        dead = self._library.catalog.jobs.find(state="dead", ident=job.ident, limit=_MOST_DEAD)
        failed = {each.kind for each in dead if each.batch == job.batch}  # others are of another sync
        states = {name: "failed" if replicate(name) in failed else "done" for name in told.pop("replicas", ())}
        return {
            "type": "image.synced",
            "id": delivery,
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "ident": job.ident,
            **told,
            "replicas": states,
        }

    def _signed(self, delivery: str, body: bytes) -> dict[str, str]:
        """Return the headers of this attempt: the time is of now, the id that of the first."""
        return sign(self._secrets, id=delivery, timestamp_s=int(time.time()), body=body)


def with_query(url: str, said: dict[str, Any]) -> tuple[str, str]:
    """Return a URL with what is said in its query, in the original's way, and the query, which is what is signed."""
    sizes = ",".join(f"{width}x{height}" for width, height in said.get("sizes", ()))
    replicas = ",".join(f"{name}:{state}" for name, state in said["replicas"].items())
    more = {name: said[name] for name in ("ident", "id", "timestamp")} | {"sizes": sizes, "replicas": replicas}
    plain = url.partition("#")[0]
    address, _, query = plain.partition("?")
    query = "&".join(part for part in (query, urlencode(more)) if part)
    return f"{address}?{query}", query
