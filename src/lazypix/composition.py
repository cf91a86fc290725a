"""How parts are made of settings, and put together: used by the faces only."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from typing import Protocol, TypeVar

from pydantic import SecretStr

from lazypix.addresses import Addresses
from lazypix.answers import QUIET_S, SharedAnswers
from lazypix.cache.opening import open_cache
from lazypix.catalog import Catalog
from lazypix.changes import Changes
from lazypix.changes.opening import open_changes
from lazypix.delivery import Delivery
from lazypix.engine import Engine
from lazypix.engine.renderers import RendererEngine, RendererLimits
from lazypix.errors import SettingsError
from lazypix.handover import choose_handover
from lazypix.jobs import Kind
from lazypix.jobs.calling import calling
from lazypix.jobs.kinds import scrubbing, sweep, warm
from lazypix.jobs.purging import purging
from lazypix.jobs.replicating import replicating
from lazypix.jobs.runner import JobRunner
from lazypix.keys import KeyScheme
from lazypix.lease.opening import open_leases
from lazypix.library import Library
from lazypix.outbound.client import OutboundClient
from lazypix.outbound.downloading import Downloader
from lazypix.outbound.rules import Rules, split_url
from lazypix.replicas.layout import OwnKeys
from lazypix.replicas.replica import Replica
from lazypix.settings import Settings
from lazypix.stores import BlobStore
from lazypix.stores.addresses import open_store
from lazypix.stores.local import make_folder


def open_library(settings: Settings, engine: Engine | None = None, *, tidies: bool = True) -> Library:
    """Make the library that the settings describe; without `engine` it renders in threads. `tidies`: as `Library`.

    The engine is the library's: where that cannot be opened, it is closed, so that no renderers are left.
    """
    try:
        return _opened(settings, engine, tidies=tidies)
    except BaseException:
        if engine is not None:
            engine.close()
        raise


def open_listening(settings: Settings, engine: Engine | None = None) -> Library:
    """As `open_library`; the library hears what others change, or is not opened at all."""
    library = open_library(settings, engine)
    try:
        library.listen()
    except BaseException:
        library.close()
        raise
    return library


class Closable(Protocol):
    """What is open, or works, until it is closed."""

    def close(self) -> None:
        """Finish what is begun, if it does not take long, and stop."""


_Part = TypeVar("_Part", bound=Closable)


def _opened(settings: Settings, engine: Engine | None, *, tidies: bool) -> Library:
    with ExitStack() as parts:
        catalog = parts.enter_context(closing(_catalog(settings)))
        library = Library.open(
            settings.data,
            catalog=catalog,
            store=_held(parts, _open(settings.store, settings.store_access_key, settings.store_secret_key)),
            replicas=_replicas(settings, parts),
            engine=engine,
            limits=settings.limits,
            keys=KeyScheme(prefix=settings.key_prefix, shard=settings.key_shard),
            base_url=settings.base_url,
            gate=settings.gate,
            expiry_step_s=settings.url_expiry_step_s,
            ticket_keys=settings.ticket_ring,
            queue=settings.queue,
            queue_s=settings.queue_s,
            patience_s=settings.request_deadline_s,
            tidies=tidies,
            facts_ttl_s=settings.cache_ttl_s / 2,  # an answer may be made of facts at the end of theirs
            sidecars=settings.sidecars,
            shared=_held(parts, _shared(settings)),
            changes=_held(parts, _changes(settings)),
            leases=_held(
                parts, open_leases(settings.leases.get_secret_value() if settings.leases else None, catalog)
            ),
            lease_s=settings.lease_s,
            undelete_s=settings.undelete_s,
            upload_keep_s=settings.upload_keep_s,
            max_variants=settings.max_variants,
            max_variant_bytes=settings.max_variant_bytes,
            purges=settings.purge_url is not None,
            downloader=make_downloader(settings),
            remote_hosts=settings.remote_hosts,
            remote_ttl_s=settings.remote_ttl_s,
        )
        parts.pop_all()  # they are the library's from now on
    return library


def _held(parts: ExitStack, part: _Part | None) -> _Part | None:
    """Have a part closed if what comes after it fails."""
    if part is not None:
        parts.callback(part.close)
    return part


def make_addresses(settings: Settings) -> Addresses:
    """Make what writes and signs addresses, for programs that open no library: no I/O."""
    return Addresses(base_url=settings.base_url, gate=settings.gate, expiry_step_s=settings.url_expiry_step_s)


def make_replicas(settings: Settings) -> list[Replica]:
    """Open the stores of the replicas; nothing is connected to yet.

    Raises:
        SettingsError: a store's address is wrong.
    """
    with ExitStack() as parts:
        made = _replicas(settings, parts)
        parts.pop_all()
    return made


def _replicas(settings: Settings, parts: ExitStack) -> list[Replica]:
    own = KeyScheme(prefix=settings.key_prefix, shard=settings.key_shard)
    made = []
    first = _held(parts, _open(settings.replica, settings.replica_access_key, settings.replica_secret_key))
    if first is not None:
        made.append(Replica(name="replica", store=first, what="all", layout=OwnKeys(scheme=own)))
    for replica in settings.replicas:
        try:
            store = parts.enter_context(closing(open_store(replica.address, secrets=replica.secrets)))
        except SettingsError as error:
            raise SettingsError(f"replicas: {replica.name}: {error}") from None
        made.append(Replica(name=replica.name, store=store, what=replica.what, layout=replica.keys(own)))
    return made


def _catalog(settings: Settings) -> Catalog:
    if settings.catalog is not None:
        return Catalog.open(settings.catalog.get_secret_value())
    make_folder(settings.data)
    return Catalog.sqlite(settings.data / "catalog.sqlite")


def _shared(settings: Settings) -> SharedAnswers | None:
    if settings.shared_cache is None:
        return None
    quiet_s = max(QUIET_S, 2 * settings.cache_ttl_s)  # longer than facts are believed without a look
    cache = open_cache(settings.shared_cache.get_secret_value())
    return SharedAnswers(cache, ttl_s=settings.shared_cache_ttl_s, quiet_s=quiet_s)


def _changes(settings: Settings) -> Changes | None:
    return open_changes(settings.changes.get_secret_value()) if settings.changes else None


def _open(address: str, access_key: SecretStr | None, secret_key: SecretStr | None) -> BlobStore | None:
    if not address:
        return None
    given = {"access_key": access_key, "secret_key": secret_key}
    return open_store(address, secrets={name: key.get_secret_value() for name, key in given.items() if key})


def make_renderers(settings: Settings) -> RendererEngine:
    """Make the renderer processes of one server process: its share of all."""
    limits = RendererLimits(
        deadline_s=settings.render_deadline_s,
        memory_bytes=settings.render_memory_bytes,
        renders=settings.renders_per_process,
    )
    return RendererEngine(max(1, settings.renderers // settings.workers), limits)


def make_kinds(settings: Settings, library: Library, stopping: threading.Event) -> list[Kind]:
    """Make all kinds of jobs that there are; those that take long end when `stopping` is set."""
    older_than_s = settings.scrub_days * 86_400
    return [
        warm(library),
        sweep(library),
        scrubbing(library, bytes_per_s=settings.scrub_rate, older_than_s=older_than_s, stopping=stopping),
        *(replicating(library, replica) for replica in library.replicas),
        calling(library, make_client(settings), settings.callback_secrets, settings.callback_method),
        *_purging(settings, library),
    ]


def _purging(settings: Settings, library: Library) -> list[Kind]:
    if settings.purge_url is None:
        return []
    url = settings.purge_url.get_secret_value()
    parts = split_url(url)
    # The operator's own choice: its host may lie in the network that callbacks must not reach.
    rules = Rules.of([parts.hostname or ""], [parts.port or {"http": 80, "https": 443}[parts.scheme]])
    return [purging(library, OutboundClient(rules), url, settings.callback_secrets)]


def make_client(settings: Settings) -> OutboundClient:
    """Make the client for URLs that others name."""
    return OutboundClient(make_rules(settings))


def make_downloader(settings: Settings) -> Downloader:
    """Make what downloads originals that others name."""
    rules = Rules.of(
        settings.outbound_allow, settings.outbound_ports, only=settings.fetch_hosts, denied=settings.fetch_deny
    )
    return Downloader(rules, total_s=settings.fetch_deadline_s)


def make_rules(settings: Settings) -> Rules:
    """Make the rules about what others may have us reach."""
    return Rules.of(settings.outbound_allow, settings.outbound_ports)


def check_jobs(settings: Settings) -> None:
    """Make sure that jobs can be seen to as the settings say.

    Raises:
        SettingsError: Celery is not installed.
    """
    if settings.jobs == "celery":
        import lazypix.jobs.messages  # noqa: F401


def begin_jobs(settings: Settings, library: Library) -> Closable | None:
    """Begin to see to the jobs of a server process, as the settings say: carry them out, or tell workers of them.

    Raises:
        SettingsError: as `check_jobs`.
    """
    if settings.jobs == "server":
        return make_runner(settings, library)
    if settings.broker is None or settings.jobs == "none":
        return None
    from lazypix.jobs.messages import RESEND_EVERY_S, Sender, make_app

    app = make_app(settings.broker.get_secret_value())
    rows = library.catalog.jobs
    unheard_s = settings.job_resend_s
    return Sender(app, rows, unheard_s=unheard_s, resend_every_s=min(RESEND_EVERY_S, unheard_s))


def make_runner(settings: Settings, library: Library) -> JobRunner:
    """Begin to carry out the jobs of a library in this process."""
    stopping = threading.Event()
    return JobRunner(
        library.catalog.jobs,
        make_kinds(settings, library, stopping),
        workers=settings.job_workers,
        lease_s=settings.job_lease_s,
        stopping=stopping,
    )


def make_delivery(settings: Settings, library: Library) -> Delivery:
    """Make the delivery that the settings describe.

    Raises:
        SettingsError: the store cannot be answered from as they say.
    """
    handover = choose_handover(
        library.store,
        stored_images=settings.stored_images,
        expires_s=settings.redirect_expires_s,
        max_age_s=settings.max_age_s,
        accel_redirect=settings.accel_redirect,
    )
    return Delivery(
        library,
        cache_bytes=settings.cache_bytes,
        cache_ttl_s=settings.cache_ttl_s / 2,
        max_age_s=settings.max_age_s,
        handover=handover,
    )
