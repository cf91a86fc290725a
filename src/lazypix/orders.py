"""What has to be done when an image changes, as jobs: pure, and added in the transaction of the change."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lazypix.catalog.job_values import IDLE, SOON, NewJob
from lazypix.catalog.values import StoredVariant
from lazypix.transform import Transform

REPLICATE, CALLBACK, PURGE = "replicate", "callback", "purge"
"""Kinds of jobs; of `replicate` there is one a replica."""

WARM = "warm"
"""The kind of the jobs that make sizes ahead."""

Received = Literal["originals", "named", "all"]


def replicate(name: str) -> str:
    """Return the kind of the jobs for one replica: of its own, so that one that is away keeps no other waiting."""
    return f"{REPLICATE}:{name}"


def warm_jobs(
    ident: str, transforms: Iterable[Transform], *, caller: str = "", batch: str | None = None
) -> list[NewJob]:
    """Return the jobs that make sizes of an image before anybody asks for them."""
    return [
        NewJob(
            kind=WARM,
            ident=ident,
            payload={"transform": transform.text},
            priority=IDLE,
            caller=caller,
            batch=batch,
            unique_key=f"{WARM}:{ident}:{transform.text}",
        )
        for transform in transforms
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody who uploads, or syncs, wants to be done with the image besides."""

    sizes: tuple[str, ...] = ()
    """Canonical texts with their format, of the sizes that were named."""
    sync: bool = True
    callback: str = ""
    """The URL that is told when it is done; empty: none."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What it is told besides."""
    caller: str = ""
    """Whose turn it takes; see `NewJob`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Makes the jobs of a library that has these replicas: names, and what each receives."""

    replicas: Mapping[str, Received] = field(default_factory=dict)
    purges: bool = False
    """Whether a CDN is told of addresses that it must not serve any more."""

    def wished(self, ident: str, wish: Wish, *others: NewJob, whole: bool = False) -> list[NewJob]:
        """Return the jobs for an image that was uploaded, resized or is to be synced.

        The replicas get original and sizes; when that and the `others` are done, the callback is told. With `whole`
        the replicas get everything that they receive of the image.
        """
        jobs = list(others)
        if wish.sync:
            for name, received in self.replicas.items():
                sizes = [] if received == "originals" else list(wish.sizes)
                payload = {"original": True, "sizes": sizes, "whole": whole}
                jobs.append(NewJob(kind=replicate(name), ident=ident, payload=payload, caller=wish.caller))
        if not wish.callback:
            return jobs
        batch = secrets.token_hex(16)
        told = dict(wish.told) | {"replicas": list(self.replicas) if wish.sync else []}
        payload = {"url": wish.callback, "id": f"msg_{secrets.token_hex(16)}", "told": told}
        callback = NewJob(kind=CALLBACK, ident=ident, payload=payload, caller=wish.caller, batch=batch, waits=True)
        return [*(_in_batch(job, batch) for job in jobs), callback]

    def deleted(self, ident: str, variants: Sequence[StoredVariant]) -> list[NewJob]:
        """Return the jobs for an image that is deleted for good; `variants` are those that it has."""
        names = [[variant.stem, variant.format] for variant in variants]
        return [
            NewJob(kind=replicate(name), ident=ident, payload={"variants": [] if what == "originals" else names})
            for name, what in self.replicas.items()
        ]

    def purged(self, ident: str, variants: Sequence[StoredVariant]) -> list[NewJob]:
        """Return the jobs for an image that was deleted or had back, or of which these variants were dropped."""
        names = [[variant.stem, variant.format] for variant in variants]
        return [NewJob(kind=PURGE, ident=ident, payload={"variants": names}, priority=SOON)] if self.purges else []

    def restored(self, ident: str) -> list[NewJob]:
        """Return the jobs for an image that was had back."""
        payload = {"original": True, "whole": True}
        return [NewJob(kind=replicate(name), ident=ident, payload=payload) for name in self.replicas]

    @property
    def spares_named(self) -> bool:
        """Whether a replica has the sizes that were named: it is read there, and none here says that it is not."""
        return any(received != "originals" for received in self.replicas.values())

    def dropped(self, ident: str, variants: Sequence[StoredVariant]) -> list[NewJob]:
        """Return the jobs for an image that does not have these variants any more."""
        jobs = []
        for name, received in self.replicas.items():
            gone = [[v.stem, v.format] for v in variants if received == "all" or (received == "named" and v.named)]
            if gone:
                jobs.append(NewJob(kind=replicate(name), ident=ident, payload={"variants": gone}))
        return jobs

    def stored(self, ident: str, variant: StoredVariant) -> list[NewJob]:
        """Return the jobs for a variant that was stored."""
        payload = {"variants": [[variant.stem, variant.format]]}
        key = f"{ident}/{variant.name}"
        return [
            NewJob(kind=replicate(name), ident=ident, payload=payload, unique_key=f"{replicate(name)}:{key}")
            for name, received in self.replicas.items()
            if received == "all"
        ]


def _in_batch(job: NewJob, batch: str) -> NewJob:
    return replace(job, batch=batch)
