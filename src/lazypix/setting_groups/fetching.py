"""What may be downloaded: originals by URL, and images of other servers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from lazypix.outbound.rules import check_hosts

_Hosts = Annotated[tuple[str, ...], AfterValidator(check_hosts)]


class FetchingSettings(BaseModel):
    """What may be downloaded."""

    fetch_hosts: _Hosts = Field(
        (),
        description="The only hosts that uploads by URL may name: `photos.example`, or `*.photos.example` for all "
        "below it. Default: all of the public internet.",
    )
    fetch_deny: _Hosts = Field(
        (),
        description="Hosts from which nothing is downloaded, whatever else is set; named as in `fetch_hosts`. "
        "An address is denied under all its names.",
    )
    fetch_deadline_s: float = Field(
        10.0, gt=0, le=300, description="Seconds for a download, all its redirects and the last byte included."
    )
    remote_hosts: _Hosts = Field(
        (),
        description="Hosts whose images are served below `/remote/`; named as in `fetch_hosts`. Default: none.",
    )
    remote_ttl_s: float = Field(
        86_400.0, ge=1, le=31_536_000, description="Seconds after which such an image's server is asked for changes."
    )
