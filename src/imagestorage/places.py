"""Where images lie in S3, and under which URLs the world finds them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from urllib.parse import quote, urlencode, urlsplit

from lazypix.errors import SettingsError
from lazypix.setting_rules import check_prefix

# Source: Amazon S3 user guide, "Amazon S3 endpoints": s3.<region>, s3.dualstack.<region>, and the older s3-<region>.
_AMAZON = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?:dualstack\.)?(?P<region>[a-z]{2}[a-z0-9-]+))?\.amazonaws\.com"
)
_AMAZON_REGION = "us-east-1"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)
_CREDENTIALS = ("access_key", "secret_key", "endpoint", "region")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder of a bucket, without what it takes to write there: fit to be sent to others."""

    bucket: str
    base_url: str
    """What the world reads the bucket at; no slash at its end."""
    base_path: str = ""
    """Empty, or folders that end in a slash; none at its beginning."""
    endpoint: str = ""
    """Of the S3 server; empty: Amazon's for the region."""
    region: str = ""

    def url(self, key: str) -> str:
        """Return the public URL of a key."""
        return f"{self.base_url}/{quote(key, safe='/,=')}"

    @property
    def store(self) -> str:
        """The address of the bucket, as `lazypix` has it."""
        options = {"endpoint": self.endpoint, "region": self.region, "public_url": self.base_url}
        return f"s3://{self.bucket}/?{urlencode({name: value for name, value in options.items() if value})}"

    def to_json(self) -> dict[str, str]:
        """Return the place as JSON-able values; none is secret."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, str]) -> Place:
        """Return the place that `to_json` made this of.

        Raises:
            SettingsError: it is none.
        """
        names = {field.name for field in fields(cls)}
        if (
            not isinstance(value, Mapping)
            or set(value) != names
            or not all(isinstance(v, str) for v in value.values())
        ):
            raise SettingsError(f"This is no place of images; accepted: an object of {', '.join(sorted(names))}")
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What it takes to write to a bucket; empty: what `LAZYPIX_*` or the service's own variables say."""

    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)


def read_place(
    credentials: Mapping[str, str], bucket: str, base_url: str, base_path: str
) -> tuple[Place, Credentials]:
    """Read what applications are configured with.

    The S3 server is the one that `credentials` name as `endpoint`, and `region`; else the one of `base_url`, when
    that ends in the bucket's name, or is the bucket's host at Amazon; else Amazon's.

    Raises:
        SettingsError: something is malformed; no value of the credentials is named.
    """
    unknown = sorted(set(credentials) - set(_CREDENTIALS))
    if unknown:
        raise SettingsError(f"The credentials have {', '.join(unknown)}; accepted: {', '.join(_CREDENTIALS)}")
    if not _BUCKET.fullmatch(bucket):
        raise SettingsError(f"bucket={bucket[:64]!r} is not accepted; accepted: the name of a bucket")
    url = _checked_url(base_url)
    endpoint, region = _server(url, bucket)
    place = Place(
        bucket=bucket, base_url=url, base_path=_folders(base_path),
        endpoint=credentials.get("endpoint", endpoint).rstrip("/"), region=credentials.get("region", region),
    )  # fmt: skip
    keys = Credentials(access_key=credentials.get("access_key"), secret_key=credentials.get("secret_key"))
    return place, keys


def _checked_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and not (parts.username or parts.password)
    except ValueError:
        good = False
    if not good or "?" in base_url or "#" in base_url:
        accepted = "accepted: http or https, a host and a path, such as https://s3.eu-central-1.amazonaws.com/bucket/"
        raise SettingsError(f"base_url is malformed; {accepted}")
    return base_url.rstrip("/")


def _server(base_url: str, bucket: str) -> tuple[str, str]:
    """Return endpoint and region of the server that the public URLs are read from; empty: not known."""
    found = _AMAZON.fullmatch(urlsplit(base_url).hostname or "")
    region = (found["region"] or _AMAZON_REGION) if found else ""
    if base_url.endswith(f"/{bucket}"):
        return base_url.removesuffix(f"/{bucket}"), region or _AMAZON_REGION
    return "", region if found and found["bucket"] == bucket else ""


def _folders(base_path: str) -> str:
    """Return a prefix of keys: without the slash that it may begin with. See docs/decisions/0025."""
    plain = base_path.strip("/")
    try:
        return check_prefix(f"{plain}/" if plain else "")
    except ValueError:
        raise SettingsError(f"base_path={base_path[:64]!r} is not accepted; accepted: / or folders, /img/") from None
