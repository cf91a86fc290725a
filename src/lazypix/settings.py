"""Settings, from a TOML file and `LAZYPIX_*` environment variables.

The environment wins over the file, arguments win over both. All faults are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from lazypix.engine.renderers import RendererLimits
from lazypix.errors import SettingsError
from lazypix.handover import StoredImages
from lazypix.outbound.rules import PORTS
from lazypix.plan import Limits
from lazypix.replica_settings import ReplicaSettings
from lazypix.setting_rules import (
    check_accel_redirect,
    check_allowed,
    check_api_keys,
    check_broker,
    check_prefix,
    check_purge_url,
    check_secret,
    open_to_all,
    secrets_of,
)
from lazypix.setting_sources import DEFAULT_FILE, FILE_VARIABLE, PREFIX, read_environment, read_file
from lazypix.stores.addresses import without_secrets

_MIB = 1024 * 1024
_LIMITS, _RENDERER = Limits(), RendererLimits()


class Settings(BaseModel):
    """Everything that can be set. Frozen; every field has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    data: Path = Field(
        Path("data"),
        description="Folder of this machine: locks, uploads on their way, and unless `store` and `catalog` say "
        "otherwise originals, variants and the catalog.",
    )
    store: str = Field(
        "",
        description="Where originals and variants are kept: `file:///<folder>`, `s3://<bucket>/<prefix>`, "
        "`az://<container>/<prefix>`, `beansdb://<host>:<port>,…`. Default: the folder `images` in `data`.",
    )
    store_access_key: SecretStr | None = Field(
        None, description="Access key (Azure: account) for `store`. Default: what the service's own variables say."
    )
    store_secret_key: SecretStr | None = Field(None, description="Secret key for `store`.")
    catalog: SecretStr | None = Field(
        None,
        description="Database of the catalog: `postgresql://<user>:<password>@<host>/<database>` or "
        "`sqlite:///<path>`. Default: `catalog.sqlite` in `data`.",
    )
    replica: str = Field(
        "",
        description="A second store that receives everything, under the library's own keys: short for one of "
        "`replicas` that is called `replica`. `lazypix copy` fills it with what was there before.",
    )
    replica_access_key: SecretStr | None = Field(None, description="As `store_access_key`, for `replica`.")
    replica_secret_key: SecretStr | None = Field(None, description="As `store_secret_key`, for `replica`.")
    replicas: tuple[ReplicaSettings, ...] = Field(
        (),
        description="Stores that receive copies, each a table `[[replicas]]` with `name`, `store`, `access_key`, "
        "`secret_key`, `what` (`originals`, `named` sizes too, `all`), `profile` (`bos`, `kodo`), `layout` "
        "(`lazypix`, `imageserver`) or templates `original` and `variant`. In the environment a "
        "JSON array. Default: none.",
    )
    callback_secret: Annotated[SecretStr | None, AfterValidator(check_secret)] = Field(
        None,
        description="Signs callbacks: 24 characters or more, or `whsec_` and base64. Two, separated by a space, "
        "while it is changed. Default: they are not signed.",
    )
    callback_method: Literal["POST", "GET"] = Field(
        "POST", description="`POST`: callbacks get JSON; `GET`: what is to be said stands in the query."
    )
    purge_url: Annotated[SecretStr | None, AfterValidator(check_purge_url)] = Field(
        None,
        description="Told (POST, JSON, signed as callbacks are) which addresses a CDN must not serve any more: after "
        "a deletion, an undeletion and a purge. It may lie anywhere.",
    )
    outbound_allow: Annotated[tuple[str, ...], AfterValidator(check_allowed)] = Field(
        (),
        description="Hosts, addresses and networks (`10.1.0.0/16`) that callbacks may reach although they are not "
        "public.",
    )
    outbound_ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = Field(
        PORTS, description="Ports that callbacks may reach."
    )
    sidecars: bool = Field(
        False,
        description="Store filename and metadata beside each original too, so that `lazypix reindex` can rebuild the "
        "catalog whole from the store alone. Whoever can read the store can read them.",
    )
    scrub_rate: int = Field(
        0,
        ge=0,
        description="Bytes a second for verifying originals again in the background, by one process of all; 0: "
        "`lazypix scrub` does.",
    )
    scrub_days: float = Field(30.0, gt=0, description="Days after which an original is verified again.")
    undelete_s: float = Field(
        0.0, ge=0, description="Seconds for which a deleted image can be had back; 0: it is removed at once."
    )
    max_variants: int = Field(
        500, ge=0, description="Variants kept of one image, the least used go first; 0: as many as are asked for."
    )
    max_variant_bytes: int = Field(
        0, ge=0, description="Bytes of all variants together, the least used go first; 0: no bound."
    )
    key_prefix: Annotated[str, AfterValidator(check_prefix)] = Field(
        "", description="Put before every key in the store, such as `img/`."
    )
    key_shard: int = Field(
        0, ge=0, le=4, description="How many of an ident's last characters make a folder of their own; 0: none."
    )
    base_url: str = Field(
        "",
        description="Put before the URLs that are given out, such as `https://img.example`. "
        "Web pages of this address may write without a key.",
    )

    host: str = Field(
        "127.0.0.1", description="Address to listen on; beyond loopback it needs `api_keys` and `urls`."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(
        1, ge=1, le=64, description="Server processes; one answers tens of thousands of hits a second."
    )
    access_log: bool = Field(False, description="Write a line for every request.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important lines to log; `debug` has one for every render."
    )
    api_keys: Annotated[tuple[SecretStr, ...], AfterValidator(check_api_keys)] = Field(
        (),
        description="Keys for writes, of 16 characters or more, sent as `Authorization: Bearer <key>`. "
        "None: writes need no key, and are refused to web pages other than `base_url`'s.",
    )
    urls: Literal["open"] | None = Field(
        None, description="Who may ask for sizes: `open`, everybody. To be chosen before listening beyond loopback."
    )

    max_bytes: int = Field(_LIMITS.max_bytes, ge=1, description="Bytes of an original.")
    max_pixels: int = Field(_LIMITS.max_pixels, ge=1, description="Pixels of an image, summed over its frames.")
    max_frames: int = Field(_LIMITS.max_frames, ge=1, description="Frames of an animation.")
    max_side: int = Field(_LIMITS.max_side, ge=1, le=65_535, description="Pixels of a result's width and height.")

    renderers: int = Field(
        os.cpu_count() or 1,
        ge=1,
        le=256,
        description="Renderer processes in all, at least one a server process. Default: one a core.",
    )
    render_deadline_s: float = Field(_RENDERER.deadline_s, gt=0, description="Seconds for one image in a renderer.")
    render_memory_bytes: int = Field(
        _RENDERER.memory_bytes, ge=0, description="Address space of one renderer process; 0: no limit."
    )
    renders_per_process: int = Field(
        _RENDERER.renders, ge=1, description="Renders after which a renderer process is replaced."
    )
    queue: int = Field(256, ge=1, description="Variants being made or waiting in one server process; beyond it: 503.")
    queue_s: float = Field(
        20.0,
        gt=0,
        description="Seconds of work for each renderer that they may be, estimated from pixels and formats; beyond "
        "it: 503.",
    )
    request_deadline_s: float = Field(30.0, gt=0, description="Seconds a request waits for its variant; then 503.")

    jobs: Literal["server", "celery", "none"] = Field(
        "server",
        description="Who carries out what is to be done in the background: `server`, the servers themselves; "
        "`celery`, Celery workers, which are told by `broker`; `none`, only processes that run `lazypix jobs run`.",
    )
    job_workers: int = Field(
        2, ge=1, le=64, description="Jobs of each lane carried out at once by one process that carries out jobs."
    )
    job_lease_s: float = Field(
        60.0,
        ge=1,
        description="Seconds after which a job is begun again whose process was killed.",
    )
    broker: Annotated[SecretStr | None, AfterValidator(check_broker)] = Field(
        None,
        description="Celery's broker: `redis://[:<password>@]<host>:<port>/<number>`, `rediss://…`, "
        "`amqp://<user>:<password>@<host>:<port>/<vhost>` or `amqps://…`.",
    )
    job_resend_s: float = Field(
        60.0,
        ge=1,
        description="Seconds after which Celery is told once more of a job that nobody has begun.",
    )

    drain_s: float = Field(
        20.0,
        gt=0,
        le=3600,
        description="Seconds for finishing what is under way after SIGTERM; what is left then is cut.",
    )
    drain_delay_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds before that for which `/readyz` is 503 already and new requests are still answered, so "
        "that load balancers notice.",
    )

    upload_buffer_bytes: int = Field(_MIB, ge=4096, description="Memory for one upload while it streams to disk.")
    upload_idle_s: float = Field(30.0, gt=0, description="Seconds an upload may stand still; then 408.")
    upload_deadline_s: float = Field(300.0, gt=0, description="Seconds for receiving one upload; then 408.")
    uploads: int = Field(
        16, ge=1, description="Uploads received at once; others wait up to `request_deadline_s`, then get 503."
    )

    cache_bytes: int = Field(128 * _MIB, ge=0, description="Memory for finished answers, for each server process.")
    cache_ttl_s: float = Field(
        5.0,
        ge=0,
        description="Seconds that answers, and what is known of images, are believed without a look. Other machines' "
        "deletions are heard at once (`changes`); as long may they go unnoticed while nothing can be heard.",
    )
    changes: SecretStr | None = Field(
        None,
        description="How machines hear at once what others delete or purge: the "
        "same Redis for all, `redis://[:<password>@]<host>/<number>`, or `none`. Default: the catalog tells them "
        "(PostgreSQL's LISTEN and NOTIFY; a SQLite file is looked at).",
    )
    shared_cache: SecretStr | None = Field(
        None,
        description="A cache of answers that several machines share: `redis://[:<password>@]<host>/<number>` or "
        "`memcached://<host>:<port>,…`. Its failure slows, and breaks nothing.",
    )
    shared_cache_ttl_s: float = Field(86_400.0, gt=0, description="Seconds an answer stays in the shared cache.")
    leases: SecretStr | None = Field(
        None,
        description="Who sees to it that one machine at a time makes a variant: `catalog`, `none`, or a server as "
        "for `shared_cache`. Default: the catalog when it is PostgreSQL; none when it is SQLite, on one machine.",
    )
    lease_s: float = Field(
        15.0,
        ge=1,
        le=3600,
        description="Seconds after which the work of a machine that died is taken over; one that lives renews its "
        "lease.",
    )
    max_age_s: int = Field(86_400, ge=0, description="Seconds browsers and CDNs may keep an image (`Cache-Control`).")

    stored_images: StoredImages = Field(
        "proxy",
        description="How images that lie in the store are answered: `proxy`, sent by lazypix; `redirect`, by a "
        "redirect (302) to the store's public or signed address; `permanent`, by 301 where that address is public "
        "and the format is not negotiated, else by 302. A variant that was made just now is always sent.",
    )
    redirect_expires_s: int = Field(
        3600, ge=60, le=604_800, description="Seconds for which a signed address of the store is good."
    )
    accel_redirect: Annotated[str, AfterValidator(check_accel_redirect)] = Field(
        "",
        description="Have nginx send what lies in a folder store: the path that it maps to the store's folder, such "
        "as `/lazypix-files/` (`lazypix nginx` writes that). Images then come through nginx only.",
    )

    @model_validator(mode="after")
    def _safe_beyond_loopback(self) -> Settings:
        fault = open_to_all(self.host, api_keys=self.api_keys, urls=self.urls)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _celery_has_a_broker(self) -> Settings:
        if self.jobs == "celery" and self.broker is None:
            raise ValueError('jobs="celery" needs broker, the address of a Redis or RabbitMQ server')
        return self

    @model_validator(mode="after")
    def _names_apart(self) -> Settings:
        names = [replica.name for replica in self.replicas] + (["replica"] if self.replica else [])
        if len(set(names)) != len(names):
            raise ValueError(f"replicas: two have one name ({', '.join(names)}); `replica` is called replica")
        return self

    @property
    def callback_secrets(self) -> list[bytes]:
        """What signs callbacks: none, one, or two while it is changed."""
        return secrets_of(self.callback_secret)

    @property
    def limits(self) -> Limits:
        """The limits on images."""
        return Limits(
            max_bytes=self.max_bytes, max_pixels=self.max_pixels, max_frames=self.max_frames, max_side=self.max_side
        )


_SECRET = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}


def load(overrides: Mapping[str, Any] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings: defaults, then the TOML file, then the environment, then `overrides` (None is left out).

    Raises:
        SettingsError: names every fault: the setting, its value, and what is accepted.
    """
    path = environment.get(FILE_VARIABLE)
    file, file_faults = read_file(Path(path) if path else Path(DEFAULT_FILE), required=bool(path))
    variables, variable_faults = read_environment(environment, Settings.model_fields)
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    values = {**file, **variables, **given}
    sources = dict.fromkeys(file, path or DEFAULT_FILE) | {name: PREFIX + name.upper() for name in variables}
    faults = [*file_faults, *variable_faults]
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [_fault(item, sources) for item in error.errors()]
        if all(item["loc"] for item in error.errors()):  # pydantic looks at the whole only when every part is right
            whole = open_to_all(values.get("host"), api_keys=values.get("api_keys"), urls=values.get("urls"))
            faults += [whole] if whole else []
    if faults:
        raise SettingsError("\n".join(["The settings are wrong:", *(f"  {fault}" for fault in faults)]))
    return settings


def load_library(path: Path) -> Settings:
    """Read the settings of the library at `path`: its folder, with defaults for all else, or its TOML file.

    The environment has no say, since it may be about another library; nor is an address listened on.

    Raises:
        SettingsError: as `load`.
    """
    if path.is_file():
        return load({"host": Settings.model_fields["host"].default}, {FILE_VARIABLE: str(path)})
    return Settings.model_validate({"data": path})


def shown(settings: Settings) -> dict[str, Any]:
    """Return the settings in force as plain values, secrets masked."""
    values = settings.model_dump(mode="json")
    values |= {name: without_secrets(values[name]) for name in ("store", "replica")}
    return values | {"replicas": [replica.shown() for replica in settings.replicas]}


def _fault(item: Any, sources: Mapping[str, str]) -> str:
    if not item["loc"]:
        return str(item["msg"]).removeprefix("Value error, ")
    setting, *inner = item["loc"]
    name = str(setting) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inner)
    where = f" ({sources[setting]})" if setting in sources else ""
    if item["type"] == "extra_forbidden":
        accepted = f"accepted: {', '.join(ReplicaSettings.model_fields)}" if inner else "`lazypix config` lists them"
        return f"{name}{where}: there is no such setting; {accepted}"
    secret = setting in _SECRET or {"access_key", "secret_key"} & set(inner) or _may_hold_secrets(item["input"])
    value = "********" if secret else repr(item["input"])
    said = str(item["msg"]).removeprefix("Value error, ")
    return f"{name}={value}{where}: {said[0].lower()}{said[1:]}"


def _may_hold_secrets(value: object) -> bool:
    """Tell whether this is a table of settings, or several: among them may be secrets."""
    return isinstance(value, dict) or (isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value))
