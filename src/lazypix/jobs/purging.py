"""Jobs that tell a CDN, or what speaks to it, that it must not serve some addresses any more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from lazypix.catalog.jobs import Job
from lazypix.dialects.native import MOUNT, address
from lazypix.errors import Unreachable
from lazypix.formats import by_name
from lazypix.jobs import Kind
from lazypix.library import Library
from lazypix.orders import PURGE
from lazypix.outbound.client import OutboundClient
from lazypix.signing.messages import sign
from lazypix.transform import Transform

LANE = "purges"
_ATTEMPTS = 12


def purging(library: Library, client: OutboundClient, url: str, secrets: Sequence[bytes]) -> Kind:
    """Return the kind of the jobs that tell a hook which addresses of an image changed their meaning."""

    def carry_out(job: Job) -> None:
        said = {
            "type": "image.purged",
            "id": f"msg_{job.id}",
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "ident": job.ident,
            "urls": list(dict.fromkeys(_urls(library, job))),
        }
        body = json.dumps(said, separators=(",", ":")).encode()
        signed = sign(secrets, id=f"msg_{job.id}", timestamp_s=int(time.time()), body=body)
        reply = client.send("POST", url, headers={"content-type": "application/json"} | signed, body=body)
        if not reply.is_success:
            raise Unreachable(f"The purge of {job.ident} was answered with {reply.status}; accepted: 200 to 299")

    return Kind(name=PURGE, carry_out=carry_out, lane=LANE, attempts=_ATTEMPTS)


def _urls(library: Library, job: Job) -> Iterable[str]:
    """Yield the canonical addresses of the original and of the variants that were stored, negotiated ones too.

    Where addresses are signed also the links to exactly these that do not expire, as they are signed now. Other links
    a CDN finds by their paths.
    """
    assert job.ident is not None
    targets: list[tuple[str, Transform]] = []
    for image, _ in library.catalog.entries([job.ident]).values():
        targets.append((f"{MOUNT}{image.ident}.{by_name(image.format).extension}", Transform()))
    targets.append((address(job.ident), Transform()))
    for stem, format_name in job.payload["variants"]:
        variant = Transform.parse(stem)
        targets += [(address(job.ident, variant, name), variant) for name in (format_name, None)]
    for target, transform in targets:
        yield library.addresses.base_url + target
        if library.gate.ring.keys:
            yield library.addresses.of_target(target, transform)
