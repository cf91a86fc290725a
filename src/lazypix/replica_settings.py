"""The settings of one replica, and what the profiles of some clouds fill in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from lazypix.keys import KeyScheme
from lazypix.replicas.layout import IMAGESERVER, Layout, OwnKeys, Templates, What
from lazypix.stores.addresses import without_secrets

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a cloud's S3 service is reached, and what ImageServer put there."""

    endpoint: str
    region: str
    """Where none is named."""
    virtual_hosted: bool = False
    """Whether the bucket is in the endpoint's host."""

    def address(self, store: str) -> str:
        """Return a store's address with what is missing in it."""
        parts = urlsplit(store)
        given = dict(parse_qsl(parts.query))
        region = given.get("region", self.region)
        # No checksum is sent, which not all of them take; what was put is read back and hashed in any case.
        filled = {"region": region, "checksum": "none"}
        if "endpoint" not in given:
            filled |= {"endpoint": self.endpoint.format(bucket=parts.netloc.rpartition("@")[2], region=region)}
            filled |= {"virtual_hosted": "true"} if self.virtual_hosted else {}
        return parts._replace(query=urlencode(filled | given, safe=":/")).geturl()


PROFILES = {
    # Source: cloud.baidu.com/doc/BOS/s/xjwvyq9l4 (S3's domains), /s/Ck1rk80hn (no bucket in paths since June 2024)
    "bos": Profile(endpoint="https://{bucket}.s3.{region}.bcebos.com", region="bj", virtual_hosted=True),
    # Source: developer.qiniu.com/kodo/4088/s3-access-domainname, as others reprint it
    "kodo": Profile(endpoint="https://s3.{region}.qiniucs.com", region="cn-east-1"),
}


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 32 of the characters a-z 0-9 -")
    return value


class ReplicaSettings(BaseModel):
    """One `[[replicas]]`. Frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_name)]
    store: str
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    profile: Literal["bos", "kodo"] | None = None
    what: What = "named"
    layout: Literal["lazypix", "imageserver"] | None = None
    original: str = Field("", description="Template of an original's key.")
    variant: str = Field("", description="Template of a variant's key.")

    @model_validator(mode="after")
    def _whole(self) -> ReplicaSettings:
        if self.layout == "lazypix" and (self.original or self.variant):
            raise ValueError('layout="lazypix" has no templates; leave out layout, original and variant, or that one')
        if self.profile and not self.store.startswith("s3://"):
            raise ValueError(f"profile={self.profile!r} goes with a store s3://<bucket>/<prefix>?region=<region>")
        self.keys(KeyScheme())
        return self

    @property
    def address(self) -> str:
        """The store's address, as the profile completes it."""
        return PROFILES[self.profile].address(self.store) if self.profile else self.store

    @property
    def secrets(self) -> Mapping[str, str]:
        """The credentials that are given."""
        given = {"access_key": self.access_key, "secret_key": self.secret_key}
        return {name: key.get_secret_value() for name, key in given.items() if key}

    def keys(self, own: KeyScheme) -> Layout:
        """Return the layout; `own` is how the library itself spells keys.

        Raises:
            ValueError: a template would make keys that collide.
        """
        layout = self.layout or ("imageserver" if self.profile or self.original or self.variant else "lazypix")
        if layout == "lazypix":
            return OwnKeys(scheme=own)
        return Templates(
            original_template=self.original or IMAGESERVER.original_template,
            variant_template=self.variant or IMAGESERVER.variant_template,
        )

    def shown(self) -> dict[str, object]:
        """Return it as plain values, secrets masked."""
        return self.model_dump(mode="json", exclude_defaults=True) | {"store": without_secrets(self.store)}
