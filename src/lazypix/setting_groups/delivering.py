"""How images are answered, and what is remembered of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from lazypix.handover import StoredImages
from lazypix.setting_rules import check_accel_redirect

_MIB = 1024 * 1024


class DeliveringSettings(BaseModel):
    """How images are answered, and what is remembered of them."""

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
