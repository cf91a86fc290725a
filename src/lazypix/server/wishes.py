"""What a form wants besides sizes: that replicas get it, and that somebody is told when all is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lazypix.dialects.imageserver import Size, parse_sizes
from lazypix.errors import BadRequest
from lazypix.library import Library
from lazypix.orders import Wish, warm_jobs
from lazypix.originals.uploading import JobsOf
from lazypix.outbound.rules import Rules
from lazypix.plan import check_size


def read_wish(fields: Mapping[str, str], sizes: Sequence[Size], rules: Rules, *, caller: str) -> Wish:
    """Read the fields `sync` and `callback`.

    Raises:
        BadRequest: `sync` is neither true nor false, or `callback` is no URL that may be told.
    """
    sync, callback = fields.get("sync", "true").strip(), fields.get("callback", "").strip()
    if sync not in ("true", "false"):
        raise BadRequest(f"sync={sync[:64]!r} is not accepted; accepted: true, false")
    if callback:
        rules.check_url("callback", callback)
    return Wish(
        sizes=tuple(size.transform.text for size in sizes),
        sync=sync == "true",
        callback=callback,
        told={"sizes": echoed(sizes)},
        caller=caller,
    )


def jobs_for(library: Library, fields: Mapping[str, str], rules: Rules, *, caller: str) -> JobsOf:
    """Read what fields want to be done with a new image: `sizes`, `sync` and `callback`.

    Raises:
        BadRequest, BadTransform: one of them is not accepted.
    """
    sizes = parse_sizes(fields.get("sizes", ""))
    for size in sizes:
        check_size(size.transform, library.limits)
    wish = read_wish(fields, sizes, rules, caller=caller)
    transforms = [size.transform for size in sizes]
    return lambda image: library.orders.wished(
        image.ident, wish, *warm_jobs(image.ident, transforms, caller=wish.caller)
    )


def echoed(sizes: Sequence[Size]) -> list[list[str]]:
    """Return sizes as answers echo them."""
    return [list(size.echo) for size in sizes]
