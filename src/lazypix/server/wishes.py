"""What a form wants besides sizes: that replicas get it, and that somebody is told when all is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lazypix.dialects.imageserver import Size
from lazypix.errors import BadRequest
from lazypix.orders import Wish
from lazypix.outbound.rules import Rules


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


def echoed(sizes: Sequence[Size]) -> list[list[str]]:
    """Return sizes as answers echo them."""
    return [list(size.echo) for size in sizes]
